"""Launch programs: what a compiled graph does at run time, as plain data, and its encoding for the driver.

A program needs no compiled code of its own.  `encode` turns it into words that runtime/driver.ll interprets at a few
nanoseconds a step: launches of kernels, copies, branches, loops, and integer arithmetic on sizes.

Every operand is an int64 slot of one table: addresses of buffers and kernels, sizes, and values of size expressions.
Expressions of the program's sizes alone are evaluated once for each binding (`Layout.bound`); those of sizes that
kernels find at run time become arithmetic instructions.

    x + 1 on tiles of 256, on all threads:

    Program(
        sizes=("N",),
        inputs=(Input("x", "f32", ("N",)),),
        outputs=(Output("y", "f32", ("N",)),),
        steps=(Launch(kernel.symbol, ("x", "y"), ("N",), tiles=ceildiv("N", 256), work="N"),),
    )
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

Expression = int | str | tuple["str", "Expression", "Expression"]
"""A number, the name of a size, or (operator, a, b) with add sub mul floordiv mod min max less."""

OPERATORS = ("add", "sub", "mul", "floordiv", "mod", "min", "max", "less")


@dataclass(frozen=True)
class Size:
    """A symbol that the inputs bind, and its range."""

    name: str
    low: int = 0
    high: int | None = None


@dataclass(frozen=True)
class Input:
    """An operand of the program. With dtype "size" it is a Python integer that binds the size of its name.

    Arrays whose address is not a multiple of `alignment` are copied to one that is. With `overwritten`, kernels write
    into the caller's array (which then must be contiguous and aligned).
    """

    name: str
    dtype: str
    shape: tuple[Expression, ...] = ()
    alignment: int = 64
    overwritten: bool = False


@dataclass(frozen=True)
class Output:
    """A result, in a fresh array; with `alias` it is the array of that (overwritten) input, and no new one.

    Where `shape` has sizes that kernels set, `bound` is the largest it can be.
    """

    name: str
    dtype: str
    shape: tuple[Expression, ...] = ()
    bound: tuple[Expression, ...] | None = None
    alias: str | None = None


@dataclass(frozen=True)
class Constant:
    """A buffer of `size` bytes that the artifact holds, under `key` (of the constants given to the Executable)."""

    name: str
    key: str


@dataclass(frozen=True)
class Temporary:
    """A buffer of `size` bytes in the arena. It begins where the highest of the earlier temporaries in `above` ends:
    memory.plan fills that in; without it, all temporaries begin at the arena's beginning.
    """

    name: str
    size: Expression
    above: tuple[str, ...] = ()
    offset: int | None = None
    """Where it begins, if that is settled."""


@dataclass(frozen=True)
class Launch:
    """Runs `tiles` tiles of a kernel: `pointers` (names of buffers, or "&size": the address of a size's slot, for the
    kernel to set it), then `dims`. `work` estimates the nanoseconds of all tiles on one core: what is little runs in
    the caller.
    """

    kernel: str
    pointers: tuple[str, ...]
    dims: tuple[Expression, ...] = ()
    tiles: Expression = 1
    work: Expression = 1_000_000
    label: str = ""
    writes: tuple[str, ...] = ()
    """Those of `pointers` that are results: what each round of a loop writes first need not outlive the round."""


@dataclass(frozen=True)
class Copy:
    """Copies `bytes` bytes between buffers, in the caller."""

    target: str
    source: str
    bytes: Expression


@dataclass(frozen=True)
class SetSize:
    """Sets a size that is not the inputs' to the value of an expression."""

    name: str
    value: Expression


@dataclass(frozen=True)
class LoadSize:
    """Sets a size to an element of a buffer: dtype bool, i32 or i64, at its beginning."""

    name: str
    buffer: str
    dtype: str = "i64"


@dataclass(frozen=True)
class StoreSize:
    """Stores the value of an expression as an i64 at the beginning of a buffer."""

    buffer: str
    value: Expression


@dataclass(frozen=True)
class Rebind:
    """Lets the names of `targets` mean the buffers of `sources`, all at once: how loops carry values without copies."""

    targets: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class If:
    """Runs `then` if the value of `condition` is not 0, otherwise `orelse`."""

    condition: Expression
    then: tuple[Step, ...]
    orelse: tuple[Step, ...] = ()


@dataclass(frozen=True)
class While:
    """Runs `body` as long as the value of `condition` is not 0 before it."""

    condition: Expression
    body: tuple[Step, ...]


@dataclass(frozen=True)
class Check:
    """Ends the call with an InputError where the value of `condition` is 0: sizes `left` and `right` must be as it
    `says`."""

    condition: Expression
    left: Expression
    right: Expression
    says: str
    where: str = ""


@dataclass(frozen=True)
class Tiles:
    """Runs launches and copies of fixed sizes task by task, each as soon as the tasks before it are done.

    All numbers are little-endian i32. `tasks`: for each task its launch (an index of `steps`, -1: a join of others,
    which does nothing), the first of its tiles and the end. `starts`, `children`: the tasks that wait for task i are
    children[starts[i]:starts[i + 1]].
    """

    steps: tuple[Launch | Copy, ...]
    tasks: bytes
    starts: bytes
    children: bytes


Step = Launch | Copy | SetSize | LoadSize | StoreSize | Rebind | If | While | Check | Tiles


@dataclass(frozen=True)
class Program:
    """Everything that happens at run time. A thread's scratch is as large as the largest expression of `scratch`."""

    sizes: tuple[Size | str, ...] = ()
    inputs: tuple[Input, ...] = ()
    outputs: tuple[Output, ...] = ()
    constants: tuple[Constant, ...] = ()
    temporaries: tuple[Temporary, ...] = ()
    scratch: tuple[Expression, ...] = ()
    steps: tuple[Step, ...] = ()
    checks: tuple[Check, ...] = ()
    """What must hold of the inputs' sizes, asked once for each combination of them."""


class Header(IntEnum):
    """The table's first slots, as runtime/driver.ll knows them."""

    code, arguments, scratch, scratch_stride, threads, serial_below, failed, profile = range(8)


class Opcode(IntEnum):
    """The instructions of runtime/driver.ll. Operands are slots, those of jumps also words of the code."""

    finish, launch, copy, jump, branch, move, load8, load32, load64, store64 = range(10)
    add, sub, mul, floordiv, mod, min, max, less = range(10, 18)
    tiles = 18


class SectionWord(IntEnum):
    """The words of a section of tiles, as runtime/tiles.ll knows them."""

    tasks, launches, gather, table, arguments, records, starts, children, initial, counts, ready = range(11)
    root_count, roots, sinks, trace = range(11, 15)
    drawn, published, left, code, failed = 16, 32, 48, 64, 65
    end = 80


@dataclass(frozen=True)
class Section:
    """An encoded `Tiles` step: arrays that the driver reads and does not change."""

    slot: int
    """Of the table, for the section's address"""
    place: int
    """Of its instruction in the code"""
    gather: np.ndarray
    """i64: for each launch its kernel's slot (-1: a copy), how many arguments it has, their slots"""
    arguments: int
    """Of all launches together"""
    records: np.ndarray
    """i32 [tasks, 4]: launch, first tile, end, 0"""
    starts: np.ndarray
    children: np.ndarray
    counts: np.ndarray
    """i32 [tasks]: how many tasks each waits for"""
    labels: tuple[str, ...]
    """Of the launches"""


@dataclass(frozen=True)
class Layout:
    """An encoded program: its code and what each slot of the table holds."""

    slots: int
    arguments: int
    """The first of the slots in which the driver gathers a launch's arguments (the table's tail)."""
    code: np.ndarray
    kernels: tuple[tuple[int, str], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: tuple[tuple[int, str], ...]
    temporaries: tuple[int, ...]
    bound: tuple[tuple[int, Expression], ...]
    """Slots of numbers, and of expressions of the inputs' sizes."""
    addresses: tuple[tuple[int, int], ...]
    """(slot, the slot whose address it holds)"""
    found: Mapping[str, int]
    """The slots of sizes that are set at run time."""
    labels: Mapping[int, str]
    """Place in the code -> the launch's label."""
    checks: Mapping[int, Check]
    """Place in the code -> what is checked there."""
    sections: tuple[Section, ...]
    rebinds: bool
    """Whether running changes pointers in the table."""


def ceildiv(a: Expression, b: Expression) -> Expression:
    """
    >>> evaluate(ceildiv("n", 4), {"n": 9})
    3
    """
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    return ("floordiv", ("add", a, ("sub", b, 1) if not isinstance(b, int) else b - 1), b)


def evaluate(expression: Expression, sizes: Mapping[str, int]) -> int:
    if isinstance(expression, int):
        return expression
    if isinstance(expression, str):
        return sizes[expression]
    operator, left, right = expression
    a, b = evaluate(left, sizes), evaluate(right, sizes)
    match operator:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "floordiv":
            return a // b
        case "mod":
            return a % b
        case "min":
            return min(a, b)
        case "max":
            return max(a, b)
        case "less":
            return int(a < b)
    raise ValueError(f"unknown operator {operator!r}")


def names(expression: Expression) -> set[str]:
    """The sizes that an expression reads."""
    if isinstance(expression, int):
        return set()
    if isinstance(expression, str):
        return {expression}
    return names(expression[1]) | names(expression[2])


def encode(program: Program) -> Layout:
    """The words and the table of a program. Raises ValueError where a name is not defined."""
    return _Encoder(program).layout()


class _Encoder:
    def __init__(self, program: Program):
        self.program = program
        self.code: list[int] = []
        self.count = len(Header)
        self.kernels: dict[str, int] = {}
        self.bound: dict[Expression, int] = {}
        self.found: dict[str, int] = {}
        self.addresses: dict[int, int] = {}
        self.labels: dict[int, str] = {}
        self.checks: dict[int, Check] = {}
        self.sections: list[Section] = []
        self.arity, self.rebinds = 0, False
        self.symbols = {size if isinstance(size, str) else size.name for size in program.sizes}
        self.buffers: dict[str, int] = {}
        for buffer in (*program.inputs, *program.outputs, *program.constants, *program.temporaries):
            if buffer.name in self.buffers:
                raise ValueError(f"two buffers are called {buffer.name!r}")
            if getattr(buffer, "dtype", "") == "size":
                self.symbols.add(buffer.name)
            self.buffers[buffer.name] = self._slot()
        for output in program.outputs:
            if output.alias is not None:
                self.buffers[output.name] = self.buffers[output.alias]

    def layout(self) -> Layout:
        program = self.program
        for name in _assigned(program.steps):
            if name in self.symbols:
                raise ValueError(f"size {name!r} is bound by the inputs, it cannot be set")
            self.found.setdefault(name, self._slot())
        self._steps(program.steps)
        self._emit(Opcode.finish)
        slot = self.buffers.__getitem__
        return Layout(
            slots=self.count + self.arity,
            arguments=self.count,
            code=np.array(self.code, np.int64),
            kernels=tuple((at, symbol) for symbol, at in self.kernels.items()),
            inputs=tuple(slot(x.name) for x in program.inputs),
            outputs=tuple(slot(y.name) for y in program.outputs),
            constants=tuple((slot(c.name), c.key) for c in program.constants),
            temporaries=tuple(slot(t.name) for t in program.temporaries),
            bound=tuple((at, expression) for expression, at in self.bound.items()),
            addresses=tuple(self.addresses.items()),
            found=self.found,
            labels=self.labels,
            checks=self.checks,
            sections=tuple(self.sections),
            rebinds=self.rebinds,
        )

    def _slot(self) -> int:
        self.count += 1
        return self.count - 1

    def _emit(self, opcode: Opcode, *operands: int) -> int:
        """Returns the place of the instruction's last word, for a jump's target to be filled in."""
        self.code += (int(opcode), *operands)
        return len(self.code) - 1

    def _steps(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._step(step)

    def _step(self, step: Step) -> None:
        match step:
            case Launch():
                operands = self._operands(step)
                tiles, work = self._value(step.tiles), self._value(step.work)
                self.labels[len(self.code)] = step.label or step.kernel
                self._emit(Opcode.launch, self._kernel(step), tiles, work, len(operands), *operands)
                self.arity = max(self.arity, len(operands))
            case Copy(target, source, size):
                self._emit(Opcode.copy, self._pointer(target), self._pointer(source), self._value(size))
            case SetSize(name, value):
                self._emit(Opcode.move, self.found[name], self._value(value))
            case LoadSize(name, buffer, dtype):
                load = {"bool": Opcode.load8, "i32": Opcode.load32, "i64": Opcode.load64}[dtype]
                self._emit(load, self.found[name], self._pointer(buffer))
            case StoreSize(buffer, value):
                self._emit(Opcode.store64, self._pointer(buffer), self._value(value))
            case Rebind(targets, sources):
                self.rebinds = True
                held = [self._slot() for _ in sources]
                for at, source in zip(held, sources, strict=True):
                    self._emit(Opcode.move, at, self._pointer(source))
                for at, target in zip(held, targets, strict=True):
                    self._emit(Opcode.move, self._pointer(target), at)
            case If(condition, then, orelse):
                skip = self._emit(Opcode.branch, self._value(condition), -1)
                self._steps(then)
                end = self._emit(Opcode.jump, -1) if orelse else None
                self.code[skip] = len(self.code)
                self._steps(orelse)
                if end is not None:
                    self.code[end] = len(self.code)
            case While(condition, body):
                start = len(self.code)
                leave = self._emit(Opcode.branch, self._value(condition), -1)
                self._steps(body)
                self._emit(Opcode.jump, start)
                self.code[leave] = len(self.code)
            case Check():  # dividing by zero ends the call
                condition = self._value(step.condition)
                self.checks[len(self.code)] = step
                self._emit(Opcode.floordiv, self._slot(), self._value(1), condition)
            case Tiles():
                self._tiles(step)

    def _operands(self, step: Launch | Copy) -> list[int]:
        if isinstance(step, Copy):
            return [self._pointer(step.target), self._pointer(step.source), self._value(step.bytes)]
        return [self._pointer(name) for name in step.pointers] + [self._value(dim) for dim in step.dims]

    def _kernel(self, step: Launch) -> int:
        if step.kernel not in self.kernels:
            self.kernels[step.kernel] = self._slot()
        return self.kernels[step.kernel]

    def _tiles(self, step: Tiles) -> None:
        gather: list[int] = []
        for s in step.steps:
            operands = self._operands(s)
            gather += (-1 if isinstance(s, Copy) else self._kernel(s), len(operands), *operands)
        tasks, starts, children = (np.frombuffer(b, "<i4") for b in (step.tasks, step.starts, step.children))
        count = len(tasks) // 3
        launch, first, end = tasks.reshape(count, 3).T
        if len(starts) != count + 1 or starts[0] != 0 or starts[-1] != len(children) or (np.diff(starts) < 0).any():
            raise ValueError("the children of tasks are not a partition")
        if ((children < 0) | (children >= count)).any() or ((launch < -1) | (launch >= len(step.steps))).any():
            raise ValueError("a task names what is not there")
        if ((first < 0) | (end < first)).any():
            raise ValueError("a task has less than no tiles")
        self.sections.append(
            Section(
                slot=self._slot(),
                place=len(self.code),
                gather=np.array(gather, np.int64),
                arguments=len(gather) - 2 * len(step.steps),
                records=np.column_stack((tasks.reshape(count, 3), np.zeros(count, np.int32))).astype(np.int32),
                starts=starts.astype(np.int32),
                children=children.astype(np.int32),
                counts=np.bincount(children, minlength=count).astype(np.int32),
                labels=tuple("copy" if isinstance(s, Copy) else s.label or s.kernel for s in step.steps),
            )
        )
        self._emit(Opcode.tiles, self.sections[-1].slot)

    def _pointer(self, name: str) -> int:
        if name.startswith("&"):
            target = self.found[name[1:]]
            known = next((at for at, to in self.addresses.items() if to == target), None)
            if known is None:
                known = self._slot()
                self.addresses[known] = target
            return known
        if name not in self.buffers:
            raise ValueError(f"no buffer is called {name!r}")
        return self.buffers[name]

    def _value(self, expression: Expression) -> int:
        """The slot of an expression's value; emits what computes it where it depends on sizes found at run time."""
        if isinstance(expression, str) and expression in self.found:
            return self.found[expression]
        unbound = names(expression) - self.symbols
        if not unbound:
            if expression not in self.bound:
                self.bound[expression] = self._slot()
            return self.bound[expression]
        if undefined := unbound - set(self.found):
            raise ValueError(f"no size is called {min(undefined)!r}")
        operator, left, right = expression  # type: ignore[misc]  # numbers and names are done with
        a, b = self._value(left), self._value(right)
        result = self._slot()
        self._emit(Opcode[operator], result, a, b)
        return result


def _assigned(steps: Sequence[Step]) -> Iterable[str]:
    """The sizes that steps set, in order; with repetitions."""
    for step in steps:
        match step:
            case SetSize(name) | LoadSize(name):
                yield name
            case Launch():
                yield from (name[1:] for name in step.pointers if name.startswith("&"))
            case Tiles(inside):
                yield from _assigned(inside)
            case If(_, then, orelse):
                yield from _assigned(then)
                yield from _assigned(orelse)
            case While(_, body):
                yield from _assigned(body)
            case _:
                pass
