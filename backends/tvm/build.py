"""Plan -> executable: kernels compiled (or found in the cache), memory planned, steps encoded for the driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effcc.backends.tvm import entry, memory
from effcc.backends.tvm import plan as p
from effcc.backends.tvm.kernels import driver, obtain
from effcc.backends.tvm.place import Buffer
from effcc.ir.assumptions import RELATIONS
from effcc.ir.dims import Atom, Dim, Expr, Extremum, FloorDiv, Mod, Symbol, substitute, symbols


@dataclass(eq=False)
class Built:
    """What the runtime needs, as plain data: a launch program, object files, the driver, constants by key."""

    program: entry.Program
    objects: list[bytes]
    driver: bytes
    constants: dict[str, np.ndarray[Any, Any]]
    symbols: tuple[str, ...]
    """Each object's symbol"""
    launches: list[p.Launch] = field(default_factory=list)
    names: Callable[[Buffer], str] = field(default=lambda buffer: buffer.name)
    """What the program calls each buffer"""


def expression(d: Dim) -> entry.Expression:
    """A dimension in the launch program's expression language."""
    if isinstance(d, int):
        return d
    if isinstance(d, Symbol):
        return d.name
    total: entry.Expression | None = None
    assert isinstance(d, Expr)
    for monomial, c in d.terms:
        part: entry.Expression | None = None
        for atom in monomial:
            x = _atom(atom)
            part = x if part is None else ("mul", part, x)
        part = c if part is None else part if c == 1 else ("mul", part, c)
        total = part if total is None else ("add", total, part)
    return 0 if total is None else total


def _atom(atom: Atom) -> entry.Expression:
    match atom:
        case Symbol():
            return atom.name
        case FloorDiv(a, b):
            return ("floordiv", expression(a), expression(b))
        case Mod(a, b):
            return ("mod", expression(a), expression(b))
        case Extremum(which, args):
            out = expression(args[0])
            for x in args[1:]:
                out = (which, out, expression(x))
            return out
    raise TypeError(atom)


class _Namer:
    """A distinct name for each buffer that is used. Inputs keep theirs, which errors show."""

    def __init__(self, inputs: Iterable[tuple[str, Any, Buffer]]) -> None:
        self.names: dict[Buffer, str] = {buffer: name for name, _, buffer in inputs if name}
        self.given = frozenset(self.names.values())

    def __call__(self, buffer: Buffer) -> str:
        if buffer not in self.names:
            name = f"{buffer.kind}{len(self.names)}"
            while name in self.given:
                name += "_"
            self.names[buffer] = name
        return self.names[buffer]


def build(plan: p.Plan, machine: Any, threads: int | None = None) -> Built:
    """Compile the plan's kernels and encode its steps."""
    launches = plan.launches()
    kernels = list(dict.fromkeys(launch.kernel for launch in launches))
    compiled = obtain([k.request for k in kernels], machine, threads=threads)
    symbol = {plan_: made.symbol for plan_, made in zip(kernels, compiled, strict=True)}
    name = _Namer(plan.inputs)
    inputs = tuple(
        entry.Input(
            name(buffer),
            type_.dtype.name,
            tuple(expression(d) for d in type_.shape),
            alignment=type_.dtype.bytes,
            overwritten=buffer.donated,
        )
        for _, type_, buffer in plan.inputs
    )
    donated = dict(plan.aliases)
    defined = plan.defined
    outputs = tuple(
        entry.Output(
            f"result{k}",
            type_.dtype.name,
            tuple(expression(d) for d in type_.shape),
            alias=name(plan.inputs[donated[k]][2]) if k in donated else None,
            bound=tuple(expression(substitute(d, defined)) for d in type_.shape)
            if any(symbols(d) & defined.keys() for d in type_.shape)
            else None,
        )
        for k, (_, type_, place) in enumerate(plan.outputs)
    )
    for k, (_, _, place) in enumerate(plan.outputs):
        name.names.setdefault(place.buffer, f"result{k}")
    steps = _Steps(name, symbol).steps(plan.steps)
    used = list(name.names)
    constants = [b for b in used if b.kind == "constant"]
    temporaries = [b for b in used if b.kind == "temporary"]
    sizes = {s for _, type_, _ in plan.inputs for d in type_.shape for s in symbols(d)}
    program = entry.Program(
        sizes=tuple(entry.Size(s.name, s.lo, s.hi) for s in sorted(sizes, key=lambda s: s.name)),
        inputs=inputs,
        outputs=outputs,
        constants=tuple(entry.Constant(name(b), name(b)) for b in constants),
        temporaries=tuple(entry.Temporary(name(b), expression(substitute(b.nbytes, defined))) for b in temporaries),
        scratch=tuple(expression(substitute(launch.scratch, defined)) for launch in launches if launch.scratch != 0),
        steps=steps,
        checks=tuple(map(check, plan.checks)),
    )
    return Built(
        memory.plan(program),
        list({k.symbol: k.object for k in compiled}.values()),
        driver(machine.architecture),
        {name(b): _bytes(b) for b in constants},
        tuple({k.symbol: None for k in compiled}),
        launches,
        name,
    )


def check(step: p.Check) -> entry.Check:
    held, where = step.assumption, str(step.loc)
    left, right = expression(held.left), expression(held.right)
    return entry.Check(condition(held.relation, left, right), left, right, RELATIONS[held.relation], where)


def condition(relation: str, a: entry.Expression, b: entry.Expression) -> entry.Expression:
    """1 where a relation of effcc.ir.assumptions holds between two sizes, else 0."""
    fit: entry.Expression = ("sub", 1, ("less", b, a))
    if relation == "fit":
        return fit
    equal: entry.Expression = ("sub", fit, ("less", a, b))
    return equal if relation == "equal" else ("max", equal, condition("equal", ("min", a, b), 1))


def _bytes(buffer: Buffer) -> np.ndarray[Any, Any]:
    assert buffer.blob is not None
    return np.ascontiguousarray(buffer.blob.parts[0] if buffer.in_nibbles else buffer.blob.array)  # type: ignore


class _Steps:
    def __init__(self, name: _Namer, symbol: Mapping[p.KernelPlan, str]):
        self.name, self.symbol, self.conditions = name, symbol, 0

    def steps(self, steps: Any) -> tuple[entry.Step, ...]:
        return tuple(made for step in steps for made in self.step(step))

    def step(self, step: p.Step) -> list[entry.Step]:
        match step:
            case p.Launch():
                return [
                    entry.Launch(
                        self.symbol[step.kernel],
                        tuple(map(self.name, step.buffers)),
                        tuple(s.name for s in step.symbols),
                        expression(step.tiles),
                        work=expression(work(step)),
                        label=step.label,
                        writes=tuple(map(self.name, step.writes)),
                    )
                ]
            case p.Copy(target, source):
                return [entry.Copy(self.name(target), self.name(source), expression(target.nbytes))]
            case p.Define(symbol, source):
                return [entry.LoadSize(symbol.name, self.name(source))]
            case p.Check():
                return [check(step)]
            case p.Branch(condition, then, orelse):
                load, test = self._condition(condition)
                return [load, entry.If(test, self.steps(then), self.steps(orelse))]
            case p.While(condition, body):
                load, test = self._condition(condition)
                return [load, entry.While(test, (*self.steps(body), load))]

    def _condition(self, buffer: Buffer) -> tuple[entry.Step, str]:
        self.conditions += 1
        return entry.LoadSize(f"condition{self.conditions}", self.name(buffer), "bool"), f"condition{self.conditions}"


def work(launch: p.Launch) -> Dim:
    """Nanoseconds of a launch on one core, roughly: 20 flops and 8 bytes each."""
    from effcc.ir.dims import floordiv

    return floordiv(launch.flops, 20) + floordiv(launch.nbytes, 8) + 1
