"""What graphs are drawn from: the ops of the registry, or the 71 operators that NNSmith draws (Liu et al., ASPLOS 2023;
release 0.1.0), to compare coverage.

NNSmith's are its operators for torch and ONNX models without the five that it leaves out unless asked (Acos, Asin,
Log2, Pow, Sqrt). Some of them are one op of effcc under different attributes, and one node can be several of them: a
reshape to one axis is both its Reshape and its Flatten. A node that is drawn counts as the one that it was drawn for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from typing import Any

from effcc.ir import Graph, Node, Value
from effcc.ir.op import op_class
from effcc.ir.types import DTYPES, Tensor
from effcc.testing.draw import UNDRAWN, drawable_ops


def _always(node: Node) -> bool:
    return True


@dataclass(frozen=True)
class Word:
    """An operator of a vocabulary: the op that does its work, and which nodes of that op mean it.

    given: attributes that it always has. operands: how many, where the op leaves that open. ranks: what its first
    operand may have.
    """

    op: str
    when: Callable[[Node], bool] = _always
    given: Mapping[str, Any] = field(default_factory=dict)
    operands: int | None = None
    ranks: tuple[int, ...] = ()

    def may_read(self, value: Value) -> bool:
        """Whether some operand may be a value, as far as its dtype and rank tell."""
        cls = op_class(self.op)
        if not isinstance(value.type, Tensor):
            return cls.family == "sequence"
        if self.ranks and value.tensor.rank not in self.ranks:
            return False
        return value.dtype.kind in getattr(cls, "kinds", "fiub")

    def means(self, node: Node) -> bool:
        return (
            node.op.name == self.op
            and self.operands in (None, len(node.operands))
            and (not self.ranks or node.operands[0].tensor.rank in self.ranks)
            and all(getattr(node.op, name) == value for name, value in self.given.items())
            and self.when(node)
        )


class Vocabulary(dict[str, Word]):
    """Words by name."""

    def __init__(self, words: Mapping[str, Word]):
        super().__init__(words)
        self.names = tuple(words)
        self.reading = tuple(name for name, word in words.items() if op_class(word.op).operands)
        """Those that read something."""
        self._readers: dict[Any, tuple[str, ...]] = {}

    def readers(self, value: Value) -> tuple[str, ...]:
        """The words that may read a value, as far as its dtype and rank tell."""
        key = (value.dtype.kind, value.tensor.rank) if isinstance(value.type, Tensor) else type(value.type)
        if key not in self._readers:
            self._readers[key] = tuple(name for name in self.reading if self[name].may_read(value))
        return self._readers[key]


@cache
def own_vocabulary() -> Vocabulary:
    """Every op that can be drawn, by its name."""
    return Vocabulary({name: Word(name) for name in sorted({op.name for op in drawable_ops()} | UNDRAWN)})


def _joins(count: int) -> Word:
    return Word("concat", operands=count)


def _to(dtype: str) -> Word:
    return Word("cast", given={"to": DTYPES[dtype]})


def _grows(axis: int) -> Callable[[Node], bool]:
    """Whether the axis, counted from the last, is repeated or new; a new axis of one element is Reshape's work."""

    def grows(node: Node) -> bool:
        shape, wide = node.operands[0].shape, node.result.shape
        return len(wide) >= axis and wide[-axis] != (shape[-axis] if len(shape) >= axis else 1)

    return grows


def _one_axis(node: Node) -> bool:
    return len(node.op.axes) == 1  # type: ignore[attr-defined]


def _sampled(mode: str, *ranks: int) -> Word:
    """The spatial axes of images of these ranks, resampled so."""

    def sampled(node: Node) -> bool:
        return node.operands[0].shape[:2] == node.result.shape[:2]

    return Word("resize", sampled, {"mode": mode}, ranks=ranks)


def _drops_one(node: Node) -> bool:
    """Whether the reshape leaves out one axis of one element."""
    shape, short = node.operands[0].shape, node.result.shape
    return any(size == 1 and (*shape[:k], *shape[k + 1 :]) == short for k, size in enumerate(shape))


def _by_matrix(node: Node) -> bool:
    """Whether every row is multiplied by one matrix; its bias is an add, which counts as Add."""
    return node.operands[1].tensor.rank == 2


NNSMITH = Vocabulary({
    "Abs": Word("abs"),
    "Add": Word("add"),
    "And": Word("and"),
    "ArgMax": Word("argmax"),
    "ArgMin": Word("argmin"),
    "Atan": Word("atan"),
    "AvgPool2d": Word("avg_pool", ranks=(4,)),
    "BatchNorm2d": Word("batch_norm", ranks=(4,)),
    "BicubicInterp": _sampled("cubic", 4),
    "BilinearInterp": _sampled("linear", 4),
    "CastBool": _to("bool"),
    "CastF32": _to("f32"),
    "CastF64": _to("f64"),
    "CastI32": _to("i32"),
    "CastI64": _to("i64"),
    "Ceil": Word("ceil"),
    "Clip": Word("clip"),
    "Concat1": _joins(1),
    "Concat2": _joins(2),
    "Concat3": _joins(3),
    "Concat4": _joins(4),
    "Concat5": _joins(5),
    "ConstPad": Word("pad", given={"mode": "constant"}),
    "Conv1d": Word("conv", ranks=(3,)),
    "Cos": Word("cos"),
    "Div": Word("div"),
    "Equal": Word("eq"),
    "ExpandLast1": Word("broadcast_to", _grows(1)),
    "ExpandLast2": Word("broadcast_to", _grows(2)),
    "ExpandLast3": Word("broadcast_to", _grows(3)),
    "ExpandLast4": Word("broadcast_to", _grows(4)),
    "Flatten": Word("reshape", lambda node: node.result.tensor.rank == 1),
    "Floor": Word("floor"),
    "GELU": Word("gelu"),
    "Greater": Word("gt"),
    "LeakyReLU": Word("leaky_relu"),
    "Less": Word("lt"),
    "Linear": Word("matmul", _by_matrix),
    "LinearInterp": _sampled("linear", 3),
    "Max": Word("max"),
    "MaxPool2d": Word("max_pool", ranks=(4,)),
    "Min": Word("min"),
    "Mul": Word("mul"),
    "NCHWConv2d": Word("conv", ranks=(4,)),
    "NearestInterp": _sampled("nearest", 3, 4, 5),
    "Neg": Word("neg"),
    "Or": Word("or"),
    "PReLU": Word("prelu"),
    "PTMatMul": Word("matmul"),
    "ReLU": Word("relu"),
    "ReduceMax": Word("amax", _one_axis),
    "ReduceMean": Word("mean", _one_axis),
    "ReduceMin": Word("amin", _one_axis),
    "ReflectPad": Word("pad", given={"mode": "reflect"}),
    "ReplicatePad": Word("pad", given={"mode": "edge"}),
    "Reshape": Word("reshape"),
    "Round": Word("round"),
    "Sigmoid": Word("sigmoid"),
    "Sin": Word("sin"),
    "Slice": Word("slice"),
    "Softmax": Word("softmax"),
    "Squeeze": Word("reshape", _drops_one),
    "Sub": Word("sub"),
    "Tan": Word("tan"),
    "TorchReduceSum": Word("sum", _one_axis),
    "Transpose": Word("transpose"),
    "Tril": Word("trilu", given={"upper": False}),
    "TrilinearInterp": _sampled("linear", 5),
    "Triu": Word("trilu", given={"upper": True}),
    "Where": Word("where"),
    "Xor": Word("xor"),
})
"""NNSmith's name of an operator: what it means here."""


def words(node: Node) -> tuple[str, ...]:
    """The names that NNSmith has for a node; none for what it does not draw."""
    if not all(isinstance(v.type, Tensor) for v in (*node.operands, *node.results)):
        return ()
    return tuple(name for name, word in NNSMITH.items() if word.means(node))


def word_pairs(graph: Graph) -> set[tuple[str, str]]:
    """(operator, one that reads its result): the pairs of the vocabulary in a graph, nested graphs apart."""
    found: set[tuple[str, str]] = set()
    for node in graph.nodes:
        for maker in {graph.producer(v) for v in node.operands} - {None}:
            found.update(product(words(maker), words(node)))  # type: ignore[arg-type]
    return found
