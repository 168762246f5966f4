"""A program in memory, ready to be called, from several threads at once if need be.

    executable = Executable(program, objects, driver_object, constants)
    (y,) = executable(x)

Each call takes a context (a table of slots, an arena, scratch) from a pool that grows to the number of concurrent
calls, so arenas stay warm.  What depends only on the shapes is worked out once for each combination of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from effcc.errors import EffccError, InputError
from effcc.machine import available_cores

from ..entry import Check, Expression, Header, Input, Layout, Program, Size, encode, evaluate, names
from ..memory import place, rounded
from .arrays import ALIGNMENT, ITEM_BYTES, Kind, Numpy, Torch, adopt, aligned_memory, fits
from .loader import Library, driver
from .sections import Ran, SectionMemory, address_of
from .trace import events

SERIAL_BELOW = 5_000
"""Launches with less work than this many nanoseconds run in the caller: two threads would not be faster."""

BINDINGS = 256
"""How many combinations of shapes an executable remembers."""


@dataclass(frozen=True)
class Binding:
    """What follows from the inputs' sizes: the table but for addresses, and how much memory a call needs."""

    sizes: Mapping[str, int]
    table: np.ndarray
    starts: np.ndarray
    """The arena's offset of each temporary"""
    arena: int
    scratch: int
    """Bytes of one thread"""
    outputs: tuple[tuple[int, ...] | None, ...]
    """The shape to allocate for each output, None for those that are an input's array"""
    input_bytes: tuple[int, ...]


class Context:
    """The memory of one call at a time."""

    def __init__(self, layout: Layout, kernels: Mapping[str, int], constants: Mapping[str, int]):
        self._table = aligned_memory(8 * layout.slots).view(np.int64)
        self.address = self._table.__array_interface__["data"][0]
        self.table = memoryview(self._table)
        self.binding: Binding | None = None
        self.threads = 0
        self._profile = 0
        self._layout, self._kernels, self._constants = layout, kernels, constants
        self._arena = self._scratch = aligned_memory(0)
        self._staging: dict[int, np.ndarray] = {}
        self._whole = self._table.copy()
        self.sections = tuple(map(SectionMemory, layout.sections))

    def bind(self, binding: Binding, threads: int) -> None:
        """Fills the table for these sizes and this number of threads."""
        table, layout = self._table, self._layout
        if binding.arena > self._arena.size:
            self._arena = aligned_memory(binding.arena)
        if binding.scratch * threads > self._scratch.size:
            self._scratch = aligned_memory(binding.scratch * threads)
        table[:] = binding.table
        table[Header.code] = address_of(layout.code)
        table[Header.arguments] = self.address + 8 * layout.arguments
        table[Header.scratch] = address_of(self._scratch)
        table[Header.scratch_stride] = binding.scratch
        table[Header.threads] = threads
        table[Header.serial_below] = SERIAL_BELOW
        table[Header.profile] = self._profile
        for at, symbol in layout.kernels:
            table[at] = self._kernels[symbol]
        for at, key in layout.constants:
            table[at] = self._constants[key]
        for at, target in layout.addresses:
            table[at] = self.address + 8 * target
        if layout.temporaries:
            table[list(layout.temporaries)] = address_of(self._arena) + binding.starts
        for section in self.sections:
            table[section.section.slot] = section.address
        self._whole[:] = table
        self.binding, self.threads = binding, threads

    def profile(self, address: int) -> None:
        """Lets the driver add each launch's nanoseconds to the words there, from the next call on; 0: no longer."""
        self._profile, self.binding = address, None

    def poison(self) -> None:
        """Fills the memory between calls with bytes that are NaN in every float, for tests."""
        self._arena[:] = self._scratch[:] = 0xFF

    def reset(self) -> None:
        """Undoes what running changed in the table."""
        self._table[:] = self._whole

    def stage(self, index: int, array: Any, kind: Kind, size: int) -> int:
        """The address of an aligned, contiguous copy of an input."""
        memory = self._staging.get(index)
        if memory is None or memory.size < size:
            memory = self._staging[index] = aligned_memory(max(size, 1))
        kind.copy_to(array, memory.data)
        return address_of(memory)

    def staging(self, index: int) -> memoryview:
        return self._staging[index].data


class Executable:
    """A loaded program.

    `objects` are the object files of the kernels, `driver_object` is that of the driver (objects.compile_driver),
    `constants` are arrays by the keys of the program's constants; those aligned to 64 bytes are used where they lie,
    and must not change. `threads` is the default of calls: all the cores that the process may use.
    """

    def __init__(
        self,
        program: Program,
        objects: Sequence[bytes],
        driver_object: bytes,
        constants: Mapping[str, np.ndarray] | None = None,
        *,
        threads: int | None = None,
    ):
        layout = encode(program)
        self.threads = threads or available_cores()
        self._driver = driver(driver_object)
        self._run = self._driver.run
        self._library = Library(objects, [symbol for _, symbol in layout.kernels])
        self._constants = {key: _aligned(array) for key, array in (constants or {}).items()}
        self._constant_addresses = {key: address_of(array) for key, array in self._constants.items()}
        self._take(program, layout)

    def sharing(self, program: Program) -> Executable:
        """Another program over the same kernels and constants, which lie in memory once."""
        other: Executable = object.__new__(Executable)
        other.__dict__.update(self.__dict__)
        other._take(program, encode(program))
        return other

    def _take(self, program: Program, layout: Layout) -> None:
        self.program, self.layout = program, layout
        for _, key in self.layout.constants:
            if key not in self._constants:
                raise EffccError(f"constant {key!r} of the program is not there", hint="recompile the model")
        self._contexts: deque[Context] = deque()
        self._bindings: dict[Any, Binding] = {}
        self._lock = threading.Lock()
        self._sizes = tuple(Size(size) if isinstance(size, str) else size for size in program.sizes)
        self._resets = self.layout.rebinds
        inputs = {spec.name: i for i, spec in enumerate(program.inputs)}
        self._aliases = {spec.name: inputs[spec.alias] for spec in program.outputs if spec.alias is not None}

    def __call__(self, *inputs: Any, threads: int | None = None) -> tuple[Any, ...]:
        """Runs the program on NumPy arrays or torch tensors; outputs are torch tensors if any input is one.

        Raises InputError where an input does not fit, EffccError where a kernel fails.
        """
        return self.stepped(lambda context: self._run(context.address), inputs, threads)

    def stepped(
        self, run: Callable[[Context], int], inputs: Sequence[Any], threads: int | None = None
    ) -> tuple[Any, ...]:
        """The same, but `run` takes the program's steps, in a context whose table is filled: 0, or a failure's code."""
        declared = self.program.inputs
        if len(inputs) != len(declared):
            raise InputError(f"the program takes {len(declared)} inputs, not {len(inputs)}")
        arrays: list[Any] = []
        kinds: list[Kind | None] = []
        key = []
        for given, spec in zip(inputs, declared, strict=True):
            if spec.dtype == "size":
                array, kind = int(given), None
                key.append(array)
            else:
                array, kind = adopt(given)
                key.append((array.shape, array.dtype))
            arrays.append(array)
            kinds.append(kind)
        binding = self._bindings.get(signature := tuple(key))
        if binding is None:
            binding = self._remember(signature, self._sizes_of(arrays, kinds))
        try:
            context = self._contexts.pop()
        except IndexError:
            context = Context(self.layout, self._library.addresses, self._constant_addresses)
        try:
            return self._call(run, context, binding, arrays, kinds, threads or self.threads)
        finally:
            self._contexts.append(context)

    def _call(
        self,
        run: Callable[[Context], int],
        context: Context,
        binding: Binding,
        arrays: Sequence[Any],
        kinds: Sequence[Kind | None],
        threads: int,
    ) -> tuple[Any, ...]:
        layout, table = self.layout, context.table
        if context.binding is not binding or context.threads != threads:
            context.bind(binding, threads)
        elif self._resets:
            context.reset()
        result_kind: Kind = Numpy
        staged = []
        for i, (slot, kind) in enumerate(zip(layout.inputs, kinds, strict=True)):
            if kind is None:
                continue
            if kind is Torch:
                result_kind = Torch
            array, spec = arrays[i], self.program.inputs[i]
            address = kind.address(array)
            if spec.overwritten and not kind.writable(array):
                raise InputError("the program writes into it, but it must not change", where=f"input {spec.name!r}")
            if address == 0 or address % spec.alignment:
                address = context.stage(i, array, kind, binding.input_bytes[i])
                if spec.overwritten:
                    staged.append((array, kind, context.staging(i)))
            table[slot] = address
        outputs = []
        for slot, spec, shape in zip(layout.outputs, self.program.outputs, binding.outputs, strict=True):
            if shape is None:
                outputs.append(arrays[self._aliases[spec.name]])
            else:
                array, table[slot] = result_kind.empty(shape, spec.dtype)
                outputs.append(array)
        code = run(context)
        if code:
            raise self._failure(code, table, context)
        for array, kind, memory in staged:
            kind.copy_from(array, memory)
        if layout.found:
            sizes = {**binding.sizes, **{name: table[slot] for name, slot in layout.found.items()}}
            for i, spec in enumerate(self.program.outputs):
                if spec.bound is not None:
                    outputs[i] = result_kind.cut(outputs[i], tuple(evaluate(d, sizes) for d in spec.shape))
        return tuple(outputs)

    def profile(self, *inputs: Any, threads: int | None = None, repeat: int = 10) -> list[tuple[str, float]]:
        """Seconds of each launch, by its label, in the program's order: the mean of `repeat` calls after a first one.

        A launch in a loop counts with all its rounds; without barriers a launch counts with the time of its tasks, on
        whichever threads. Not for use beside other calls: their launches count too.
        """
        if self.layout.sections:
            return self._profile_of_tasks(inputs, threads, repeat)
        times = np.zeros(self.layout.code.size, np.int64)
        self(*inputs, threads=threads)
        context = self._contexts[-1]
        context.profile(address_of(times))
        try:
            for _ in range(repeat):
                self(*inputs, threads=threads)
        finally:
            context.profile(0)
        return [(label, 1e-9 * times[place] / repeat) for place, label in self.layout.labels.items()]

    def _profile_of_tasks(
        self, inputs: Sequence[Any], threads: int | None, repeat: int
    ) -> list[tuple[str, float]]:
        times = {(s, k): 0 for s, section in enumerate(self.layout.sections) for k in range(len(section.labels))}
        for _ in range(repeat):
            for s, tasks in enumerate(self.traced(*inputs, threads=threads)):
                for task in tasks:
                    times[s, task.launch] += task.ended - task.began
        labels = {(s, k): x for s, section in enumerate(self.layout.sections) for k, x in enumerate(section.labels)}
        return [(labels[key], 1e-9 * total / repeat) for key, total in times.items()]

    def traced(self, *inputs: Any, threads: int | None = None) -> list[list[Ran]]:
        """Runs twice and tells of the second run, for each section of tiles, when and where its tasks ran.

        Not for use beside other calls. Empty where the program runs under barriers.
        """
        self(*inputs, threads=threads)
        context = self._contexts[-1]
        for section in context.sections:
            section.trace(True)
        try:
            self(*inputs, threads=threads)
            return [section.ran() for section in context.sections]
        finally:
            for section in context.sections:
                section.trace(False)

    def poison(self) -> None:
        """Fills temporaries and scratch of past calls with NaN: a kernel that reads what no kernel wrote shows."""
        for context in self._contexts:
            context.poison()

    def timeline(self, *inputs: Any, threads: int | None = None) -> dict[str, Any] | None:
        """The same in Chrome's trace format, as JSON; None where the program runs under barriers."""
        return events(self.traced(*inputs, threads=threads)) if self.layout.sections else None

    def _failure(self, code: int, table: memoryview, context: Context) -> EffccError:
        binding, place = context.binding, table[Header.failed]
        assert binding is not None
        if place in self.layout.checks:
            found = {name: table[slot] for name, slot in self.layout.found.items()}
            return self._refusal(self.layout.checks[place], {**binding.sizes, **found})
        tiles = next((s.failed for s in context.sections if s.section.place == place), None)
        label = self.layout.labels.get(place, tiles)
        if label is None:
            return EffccError("a size expression divides by zero", hint="check the inputs' sizes")
        return EffccError(f"a kernel stopped with code {code}: an index or a size is out of range", where=label)

    def _refusal(self, check: Check, sizes: Mapping[str, int]) -> InputError:
        """Names the two sizes, their values, and the inputs that tell them."""
        told = []
        for side in (check.left, check.right):
            value = evaluate(side, sizes)
            told.append(str(value) if side == value else f"{_text(side)} = {value}")
        sources = [
            f"{name} is axis {axis} of input {spec.name!r}"
            for name in sorted(names(check.left) | names(check.right))
            for spec, axis in [first_use(self.program.inputs, name)]
            if spec is not None
        ]
        message = f"sizes {told[0]} and {told[1]} {check.says}"
        return InputError("; ".join((message, *sources)), where=check.where or None)

    def _remember(self, signature: Any, sizes: Mapping[str, int]) -> Binding:
        binding = self.bind(sizes)
        with self._lock:
            self._bindings[signature] = binding
            if len(self._bindings) > BINDINGS:
                self._bindings.pop(next(iter(self._bindings)))
        return binding

    def bind(self, sizes: Mapping[str, int]) -> Binding:
        """What follows from the inputs' sizes. Raises InputError where they do not fit together."""
        program, layout = self.program, self.layout
        for check in program.checks:
            if not evaluate(check.condition, sizes):
                raise self._refusal(check, sizes)
        starts, arena = place(program.temporaries, sizes)
        table = np.zeros(layout.slots, np.int64)
        for slot, expression in layout.bound:
            table[slot] = evaluate(expression, sizes)
        outputs = []
        for spec in program.outputs:
            shape = spec.shape if spec.bound is None else spec.bound
            outputs.append(None if spec.alias is not None else tuple(evaluate(d, sizes) for d in shape))
        return Binding(
            sizes=dict(sizes),
            table=table,
            starts=np.array(starts, np.int64),
            arena=arena,
            scratch=rounded(max((evaluate(size, sizes) for size in program.scratch), default=0)),
            outputs=tuple(outputs),
            input_bytes=tuple(
                0 if x.dtype == "size" else prod(evaluate(d, sizes) for d in x.shape) * ITEM_BYTES[x.dtype]
                for x in program.inputs
            ),
        )

    def _sizes_of(self, arrays: Sequence[Any], kinds: Sequence[Kind | None]) -> dict[str, int]:
        """The program's sizes as the inputs' shapes bind them. Raises InputError where the inputs do not fit."""
        sizes: dict[str, int] = {}
        for spec, array, kind in zip(self.program.inputs, arrays, kinds, strict=True):
            if kind is None:
                sizes[spec.name] = array
                continue
            if not fits(kind.dtype(array), spec.dtype) or len(array.shape) != len(spec.shape):
                raise _mismatch(spec, array, kind)
            for dim, extent in zip(spec.shape, array.shape, strict=True):
                if isinstance(dim, str):
                    sizes.setdefault(dim, int(extent))
        for size in self._sizes:
            if size.name not in sizes:
                raise InputError(f"no input's shape tells the size {size.name!r}")
            if sizes[size.name] < size.low or (size.high is not None and sizes[size.name] > size.high):
                most = "" if size.high is None else f" and at most {size.high}"
                raise InputError(f"size {size.name} is {sizes[size.name]}, it must be at least {size.low}{most}")
        for spec, array, kind in zip(self.program.inputs, arrays, kinds, strict=True):
            if kind is not None and tuple(array.shape) != tuple(evaluate(dim, sizes) for dim in spec.shape):
                raise _mismatch(spec, array, kind)
        return sizes


def _mismatch(spec: Input, array: Any, kind: Kind) -> InputError:
    expected = ",".join(map(_text, spec.shape))
    actual = ",".join(map(str, array.shape))
    message = f"expected {spec.dtype}[{expected}], got {kind.dtype(array)}[{actual}]"
    return InputError(message, where=f"input {spec.name!r}")


def first_use(inputs: Sequence[Input], size: str) -> tuple[Input | None, int]:
    """The input whose shape tells a size, and on which axis."""
    found = ((spec, spec.shape.index(size)) for spec in inputs if size in spec.shape)
    return next(found, (None, 0))


def _text(expression: Expression) -> str:
    if isinstance(expression, int | str):
        return str(expression)
    operator, a, b = expression
    sign = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%"}.get(operator)
    return f"({_text(a)} {sign} {_text(b)})" if sign else f"{operator}({_text(a)}, {_text(b)})"


def _aligned(array: np.ndarray) -> np.ndarray:
    if array.flags.c_contiguous and address_of(array) % ALIGNMENT == 0:
        return array
    memory = aligned_memory(array.nbytes)
    Numpy.copy_to(array, memory.data)
    return memory
