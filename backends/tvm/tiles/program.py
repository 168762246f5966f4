"""Plan -> a launch program that runs without barriers, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from effcc.backends.tvm import entry
from effcc.backends.tvm import plan as p
from effcc.backends.tvm.place import Buffer
from effcc.backends.tvm.tiles import order
from effcc.backends.tvm.tiles.graph import TileGraph, build
from effcc.machine import Machine


@dataclass(frozen=True, eq=False)
class Tiled:
    """A program without barriers, the same under them, the tile graph, and where the temporaries lie (bytes)."""

    program: entry.Program
    under_barriers: entry.Program
    graph: TileGraph
    offsets: dict[Buffer, int]
    arena: int


def refusal(plan: p.Plan) -> str | None:
    """Why a plan cannot run without barriers; None where it can."""
    for step in plan.steps:
        if isinstance(step, (p.Branch, p.While)):
            return f"it has a {'branch' if isinstance(step, p.Branch) else 'loop'}, whose steps depend on data"
        if isinstance(step, (p.Define, p.Check)):
            return "it finds sizes at run time"
    types = (type_ for _, type_, _ in (*plan.inputs, *plan.outputs))
    if any(not type_.is_static for type_ in types) or not all(map(_fixed, plan.steps)):
        return "its sizes vary"
    return None


def _fixed(step: p.Step) -> bool:
    """Whether all the numbers of a launch or copy are known."""
    if isinstance(step, p.Launch):
        places = (x for part in (step.kernel.touched.operands, step.kernel.touched.results) for x in part)
        numbers = (step.tiles, step.scratch, *(d for x in places for d in (x.offset, *x.shape, *x.strides)))
        return not step.symbols and all(isinstance(d, int) for d in numbers)
    return isinstance(step, p.Copy) and isinstance(step.target.nbytes, int)


def tiled(
    plan: p.Plan, program: entry.Program, name: Callable[[Buffer], str], machine: Machine, threads: int
) -> Tiled:
    """The program of a plan (one that `refusal` does not refuse) without barriers. `program` runs it under them, its
    steps one for each of the plan's."""
    steps: Any = tuple(plan.steps)
    graph = build(steps, threads, flops_per_ns=machine.vector_bits / 8)
    temporaries = list(dict.fromkeys(b for s in steps for b in _buffers(s) if b.kind == "temporary"))
    offsets, arena = order.Arena(graph, temporaries).place()
    placed = tuple(
        entry.Temporary(name(b), int(b.nbytes), offset=offset)  # type: ignore[call-overload]
        for b, offset in zip(temporaries, offsets)
    )
    tasks = [x.astype("<i4") for x in (graph.launch, graph.begin, graph.end, graph.starts, graph.children)]
    section = entry.Tiles(
        program.steps,  # type: ignore[arg-type]
        np.column_stack(tasks[:3]).astype("<i4").tobytes(),
        tasks[3].tobytes(),
        tasks[4].tobytes(),
    )
    made = replace(program, temporaries=placed, steps=(section,))
    return Tiled(made, program, graph, dict(zip(temporaries, offsets)), arena)


def _buffers(step: p.Launch | p.Copy) -> tuple[Buffer, ...]:
    return step.buffers if isinstance(step, p.Launch) else (step.target, step.source)
