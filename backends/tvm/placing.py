"""Where values lie, chosen for the sake of those who read them: what every lowering to buffers shares."""

from __future__ import annotations

from effcc.backends.tvm.place import Place, reshaped_strides
from effcc.ir import Graph, Node, Op, Tensor, Value
from effcc.ir.dims import Dim
from effcc.ops.constant import Const
from effcc.ops.elementwise import Identity
from effcc.ops.view import Concat, Reshape, Transpose, View


class Placing:
    """The part of a lowering that decides where results go before anything is lowered."""

    places: dict[Value, Place]

    def result(self, v: Value) -> Place:
        """Where a node should write a result: where it is wanted, or a temporary."""
        raise NotImplementedError(f"{type(self).__name__}.result")

    def places_itself(self, op: Op) -> bool:
        """Whether the op's lowering decides where its results lie."""
        return False

    def choose_places(self, graph: Graph) -> None:
        """Let producers write where their only reader wants it: a slice of a concatenation, or the order that makes the
        transposes and reshapes behind them views."""
        for node in reversed(graph.nodes):
            op = node.op
            if isinstance(op, Concat):
                for v, part in zip(node.operands, concat_slices(node, self.result(node.result)), strict=True):
                    if node.operands.count(v) == 1 and self._is_free(graph, v):
                        self.places[v] = part
            elif isinstance(op, (Transpose, Reshape)) and self._is_free(graph, node.operands[0]):
                source = node.operands[0]
                if node.result not in self.places and isinstance(op, Transpose) and op.perm[-1] == len(op.perm) - 1:
                    self.result(node.result)
                if node.result in self.places:
                    before = unviewed(op, self.places[node.result], source.tensor)
                    if before is not None:
                        self.places[source] = before

    def _is_free(self, graph: Graph, v: Value) -> bool:
        """Whether a value may be placed for the sake of its one reader."""
        producer = graph.producer(v)
        return (
            producer is not None
            and v not in self.places
            and v not in graph.results
            and len(graph.users(v)) == 1
            and (isinstance(producer.op, Concat) or not isinstance(producer.op, (View, Const, Identity)))
            and not self.places_itself(producer.op)
        )


def concat_slices(node: Node, whole: Place) -> list[Place]:
    """Where each operand of a concatenation lies in its result."""
    axis: int = node.op.axis  # type: ignore[attr-defined]
    out = []
    start: Dim = 0
    for v in node.operands:
        out.append(Place(whole.buffer, v.shape, whole.strides, whole.offset + whole.strides[axis] * start))
        start = start + v.shape[axis]
    return out


def same_place(a: Place, b: Place) -> bool:
    """Whether two places of one shape hold each element at the same address (strides of axes of size 1 do not
    matter)."""
    return (
        a.buffer is b.buffer
        and a.offset == b.offset
        and all(d == 1 or x == y for d, x, y in zip(a.shape, a.strides, b.strides, strict=True))
    )


def unviewed(op: Transpose | Reshape, place: Place, operand: Tensor) -> Place | None:
    """Where the operand of a view must lie for the result to lie at `place`; None where no strides say so."""
    if isinstance(op, Transpose):
        return Place(
            place.buffer,
            operand.shape,
            tuple(place.strides[op.perm.index(k)] for k in range(operand.rank)),
            place.offset,
        )
    strides = reshaped_strides(place, operand.shape)
    return None if strides is None else Place(place.buffer, operand.shape, strides, place.offset)
