"""Sequences and optionals of values: lists whose length, and values whose presence, is known at run time.

They are for the interpreter and for passes that resolve them: a backend compiles graphs from which they have gone. A
negative position counts from the end.
"""

from __future__ import annotations

from typing import Any

from effcc.ir.dims import Dim
from effcc.ir.lazy import torch
from effcc.ir.op import Op, require, tensor
from effcc.ir.types import Optional, Sequence, Tensor, Type, bool_, i64
from effcc.ops.index import index_tensor


class SequenceOp(Op):
    family = "sequence"
    routine = True


def sequence(type_: Type) -> Sequence:
    require(isinstance(type_, Sequence), f"the operand is {type_}, not a sequence")
    return type_  # type: ignore[return-value]


def position(type_: Type) -> None:
    require(index_tensor(type_, "the position").rank == 0, f"the position is {type_}, not of rank 0")


class SequenceConstruct(SequenceOp):
    """The list of the operands, all of one type; of none, the empty list of `element`s. (ONNX SequenceConstruct,
    SequenceEmpty)"""
    name = "sequence_construct"
    operands = ("*xs",)
    element: Type | None = None

    def infer(self, *xs: Type) -> Sequence:
        element = self.element or next(iter(xs), None)
        require(element is not None, "an empty sequence needs its element type")
        require(all(x == element for x in xs), f"the elements are not all {element}")
        return Sequence(element)  # type: ignore[arg-type]

    def reference(self, *xs: Any) -> list[Any]:
        return list(xs)


class SequenceAt(SequenceOp):
    """The element at a position. (ONNX SequenceAt)"""
    name = "sequence_at"
    operands = ("xs", "at")
    undefined = "a position outside [-length, length)"

    def infer(self, xs: Type, at: Type) -> Type:
        position(at)
        return sequence(xs).element

    def reference(self, xs: list[Any], at: Any) -> Any:
        return xs[int(at)]


class SequenceInsert(SequenceOp):
    """The list with an element before a position, or at the end. (ONNX SequenceInsert)"""
    name = "sequence_insert"
    operands = ("xs", "x", "at?")
    undefined = "a position outside [-length, length]"

    def infer(self, xs: Type, x: Type, at: Type | None = None) -> Sequence:
        require(x == sequence(xs).element, f"the element is {x}, not {sequence(xs).element}")
        if at is not None:
            position(at)
        return sequence(xs)

    def reference(self, xs: list[Any], x: Any, at: Any = None) -> list[Any]:
        place = len(xs) if at is None else int(at)
        return [*xs[:place], x, *xs[place:]]


class SequenceErase(SequenceOp):
    """The list without the element at a position, or without the last. (ONNX SequenceErase)"""
    name = "sequence_erase"
    operands = ("xs", "at?")
    undefined = "a position outside [-length, length)"

    def infer(self, xs: Type, at: Type | None = None) -> Sequence:
        if at is not None:
            position(at)
        return sequence(xs)

    def reference(self, xs: list[Any], at: Any = None) -> list[Any]:
        place = -1 if at is None else int(at)
        place = place + len(xs) if place < 0 else place
        return [*xs[:place], *xs[place + 1:]]


class SequenceLength(SequenceOp):
    """The number of elements. (ONNX SequenceLength)"""
    name = "sequence_length"
    operands = ("xs",)

    def infer(self, xs: Type) -> Tensor:
        sequence(xs)
        return Tensor(i64, ())

    def reference(self, xs: list[Any]) -> Any:
        return torch.tensor(len(xs))


class SequenceConcat(SequenceOp):
    """The elements joined along an axis, or, with `new_axis`, stacked along a new one; `size` is the result's on that
    axis. (ONNX ConcatFromSequence)"""
    name = "sequence_concat"
    operands = ("xs",)
    undefined = "an empty sequence; sizes whose sum is not `size`"
    axis: int
    size: Dim
    new_axis: bool = False

    def infer(self, xs: Type) -> Tensor:
        element = tensor(sequence(xs).element, "an element")
        require(0 <= self.axis < element.rank + self.new_axis, f"axis {self.axis} does not fit {element}")
        rest = element.shape[self.axis + (not self.new_axis):]
        return element.with_shape((*element.shape[: self.axis], self.size, *rest))

    def reference(self, xs: list[Any]) -> Any:
        return torch.stack(xs, self.axis) if self.new_axis else torch.cat(xs, self.axis)


class OptionalConstruct(SequenceOp):
    """A value as one that may be absent; without operand, the absent `element`. (ONNX Optional)"""
    name = "optional"
    operands = ("x?",)
    element: Type | None = None

    def infer(self, x: Type | None = None) -> Optional:
        require(x is not None or self.element is not None, "an absent value needs its type")
        require(x is None or self.element is None or x == self.element, f"the value is {x}, not {self.element}")
        return Optional(x if x is not None else self.element)  # type: ignore[arg-type]

    def reference(self, x: Any = None) -> Any:
        return x


class OptionalHasElement(SequenceOp):
    """Whether a value is present. (ONNX OptionalHasElement)"""
    name = "optional_has_element"

    def infer(self, x: Type) -> Tensor:
        require(isinstance(x, Optional), f"the operand is {x}, not an optional")
        return Tensor(bool_, ())

    def reference(self, x: Any) -> Any:
        return torch.tensor(x is not None)


class OptionalGetElement(SequenceOp):
    """The value that is present. (ONNX OptionalGetElement)"""
    name = "optional_get_element"
    undefined = "an absent value"

    def infer(self, x: Type) -> Type:
        require(isinstance(x, Optional), f"the operand is {x}, not an optional")
        return x.element  # type: ignore[attr-defined]

    def reference(self, x: Any) -> Any:
        return x
