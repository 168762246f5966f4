"""The 71 operators that NNSmith draws (Liu et al., ASPLOS 2023; release 0.1.0), in effcc's ops: to compare coverage.

These are its operators for torch and ONNX models without the five that it leaves out unless asked (Acos, Asin, Log2,
Pow, Sqrt). Some of its operators are one op of effcc under different attributes, and one node can be several of them:
a reshape to one axis is both its Reshape and its Flatten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from effcc.ir import Graph, Node
from effcc.ir.types import Tensor


def _always(node: Node) -> bool:
    return True


@dataclass(frozen=True)
class Word:
    """An operator of the vocabulary: the op that does its work, and which nodes of that op mean it."""

    op: str
    when: Callable[[Node], bool] = _always


def _operands(count: int) -> Callable[[Node], bool]:
    return lambda node: len(node.operands) == count


def _rank(count: int) -> Callable[[Node], bool]:
    return lambda node: node.operands[0].tensor.rank == count


def _to(dtype: str) -> Callable[[Node], bool]:
    return lambda node: str(node.result.dtype) == dtype


def _attribute(name: str, value: object) -> Callable[[Node], bool]:
    return lambda node: getattr(node.op, name) == value


def _grows(axis: int) -> Callable[[Node], bool]:
    """Whether the axis, counted from the last, is repeated or new; a new axis of one element is Reshape's work."""

    def grows(node: Node) -> bool:
        shape, wide = node.operands[0].shape, node.result.shape
        return len(wide) >= axis and wide[-axis] != (shape[-axis] if len(shape) >= axis else 1)

    return grows


def _one_axis(node: Node) -> bool:
    return len(node.op.axes) == 1  # type: ignore[attr-defined]


def _sampled(mode: str, *ranks: int) -> Callable[[Node], bool]:
    """Whether the spatial axes of images of these ranks are resampled so."""

    def sampled(node: Node) -> bool:
        x, y = node.operands[0].tensor, node.result.tensor
        return node.op.mode == mode and x.rank in ranks and x.shape[:2] == y.shape[:2]  # type: ignore[attr-defined]

    return sampled


def _drops_one(node: Node) -> bool:
    """Whether the reshape leaves out one axis of one element."""
    shape, short = node.operands[0].shape, node.result.shape
    return any(size == 1 and (*shape[:k], *shape[k + 1 :]) == short for k, size in enumerate(shape))


def _by_matrix(node: Node) -> bool:
    """Whether every row is multiplied by one matrix; its bias is an add, which counts as Add."""
    return node.operands[1].tensor.rank == 2


VOCABULARY: dict[str, Word] = {
    "Abs": Word("abs"),
    "Add": Word("add"),
    "And": Word("and"),
    "ArgMax": Word("argmax"),
    "ArgMin": Word("argmin"),
    "Atan": Word("atan"),
    "AvgPool2d": Word("avg_pool", _rank(4)),
    "BatchNorm2d": Word("batch_norm", _rank(4)),
    "BicubicInterp": Word("resize", _sampled("cubic", 4)),
    "BilinearInterp": Word("resize", _sampled("linear", 4)),
    "CastBool": Word("cast", _to("bool")),
    "CastF32": Word("cast", _to("f32")),
    "CastF64": Word("cast", _to("f64")),
    "CastI32": Word("cast", _to("i32")),
    "CastI64": Word("cast", _to("i64")),
    "Ceil": Word("ceil"),
    "Clip": Word("clip"),
    "Concat1": Word("concat", _operands(1)),
    "Concat2": Word("concat", _operands(2)),
    "Concat3": Word("concat", _operands(3)),
    "Concat4": Word("concat", _operands(4)),
    "Concat5": Word("concat", _operands(5)),
    "ConstPad": Word("pad", _attribute("mode", "constant")),
    "Conv1d": Word("conv", _rank(3)),
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
    "LinearInterp": Word("resize", _sampled("linear", 3)),
    "Max": Word("max"),
    "MaxPool2d": Word("max_pool", _rank(4)),
    "Min": Word("min"),
    "Mul": Word("mul"),
    "NCHWConv2d": Word("conv", _rank(4)),
    "NearestInterp": Word("resize", _sampled("nearest", 3, 4, 5)),
    "Neg": Word("neg"),
    "Or": Word("or"),
    "PReLU": Word("prelu"),
    "PTMatMul": Word("matmul"),
    "ReLU": Word("relu"),
    "ReduceMax": Word("amax", _one_axis),
    "ReduceMean": Word("mean", _one_axis),
    "ReduceMin": Word("amin", _one_axis),
    "ReflectPad": Word("pad", _attribute("mode", "reflect")),
    "ReplicatePad": Word("pad", _attribute("mode", "edge")),
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
    "Tril": Word("trilu", _attribute("upper", False)),
    "TrilinearInterp": Word("resize", _sampled("linear", 5)),
    "Triu": Word("trilu", _attribute("upper", True)),
    "Where": Word("where"),
    "Xor": Word("xor"),
}
"""NNSmith's name of an operator: what it means here."""


def words(node: Node) -> tuple[str, ...]:
    """The names that NNSmith has for a node; none for what it does not draw."""
    if not all(isinstance(v.type, Tensor) for v in (*node.operands, *node.results)):
        return ()
    return tuple(name for name, word in VOCABULARY.items() if word.op == node.op.name and word.when(node))


def word_pairs(graph: Graph) -> set[tuple[str, str]]:
    """(operator, one that reads its result): the pairs of the vocabulary in a graph, nested graphs apart."""
    found: set[tuple[str, str]] = set()
    for node in graph.nodes:
        for maker in {graph.producer(v) for v in node.operands} - {None}:
            found.update(product(words(maker), words(node)))  # type: ignore[arg-type]
    return found
