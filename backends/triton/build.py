"""Plan -> launch program: names for buffers, an arena for the temporaries, kernels by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effcc.backends.triton.kernel import KernelSource
from effcc.backends.triton.plan import Copy, Launch, Plan
from effcc.backends.tvm import entry, memory
from effcc.backends.tvm.build import condition, expression
from effcc.backends.tvm.place import Buffer
from effcc.ir import type_symbols
from effcc.ir.assumptions import RELATIONS, Assumption


@dataclass(eq=False)
class Built:
    """What running and saving need."""

    program: entry.Program
    sources: dict[str, KernelSource]
    """Kernels by name, each once."""
    constants: dict[str, np.ndarray[Any, Any]]
    launches: list[Launch] = field(default_factory=list)


def build(plan: Plan) -> Built:
    """The launch program of a plan."""
    used = {b for step in plan.steps for b in _touched(step)}
    names: dict[Buffer, str] = {buffer: name for name, _, buffer in plan.inputs}
    for number, buffer in enumerate(plan.buffers):
        names.setdefault(buffer, f"{buffer.kind}{number}")
    taken = set[str]()
    for buffer, name in names.items():
        while name in taken:
            name += "_"
        names[buffer] = name
        taken.add(name)
    sizes = {s for _, type_, _ in plan.inputs for s in type_symbols(type_)}
    outputs = []
    for (_, type_, place), position in zip(plan.outputs, range(len(plan.outputs)), strict=True):
        alias = names[place.buffer] if place.buffer.kind == "input" else None
        name = f"alias{position}" if alias is not None else names[place.buffer]
        outputs.append(entry.Output(name, type_.dtype.name, tuple(map(expression, type_.shape)), alias=alias))
    constants = [b for b in plan.buffers if b.kind == "constant" and b in used]
    program = entry.Program(
        sizes=tuple(entry.Size(s.name, s.lo, s.hi) for s in sorted(sizes, key=lambda s: s.name)),
        inputs=tuple(
            entry.Input(names[b], t.dtype.name, tuple(map(expression, t.shape)), overwritten=b.donated)
            for _, t, b in plan.inputs
        ),
        outputs=tuple(outputs),
        constants=tuple(entry.Constant(names[b], names[b]) for b in constants),
        temporaries=tuple(
            entry.Temporary(names[b], expression(b.nbytes)) for b in plan.buffers if b.kind == "temporary" and b in used
        ),
        steps=tuple(_step(step, names) for step in plan.steps),
        checks=tuple(_check(held, str(loc)) for held, loc in plan.checks.items()),
    )
    return Built(
        memory.plan(program),
        {launch.kernel.name: launch.kernel for launch in plan.launches},
        {names[b]: np.ascontiguousarray(b.blob.array) for b in constants if b.blob is not None},
        plan.launches,
    )


def _check(held: Assumption, where: str) -> entry.Check:
    left, right = expression(held.left), expression(held.right)
    return entry.Check(condition(held.relation, left, right), left, right, RELATIONS[held.relation], where)


def _touched(step: Launch | Copy) -> tuple[Buffer, ...]:
    return step.buffers if isinstance(step, Launch) else (step.target, step.source)


def _step(step: Launch | Copy, names: Mapping[Buffer, str]) -> entry.Step:
    if isinstance(step, Copy):
        return entry.Copy(names[step.target], names[step.source], expression(step.target.nbytes))
    return entry.Launch(
        step.kernel.name,
        tuple(names[b] for b in step.buffers),
        tuple(s.name for s in step.symbols),
        expression(step.programs),
        label=step.label,
        writes=tuple(names[b] for b in step.writes),
    )
