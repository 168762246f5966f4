"""Where the last bit of a float decides: at a rounding to whole numbers, a comparison, a conversion to an integer.

A quotient that divides without rest is exact, its product with a reciprocal is not: ⌊98 / 49⌋ is 2, ⌊98 * (1/49)⌋ 1.
What only adds up, compares sizes or moves elements on the way keeps such whole numbers whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from effcc.ir.graph import Node, Value
from effcc.ir.types import Tensor
from effcc.rewrite.workspace import Item

WHOLE = frozenset("floor ceil round trunc floordiv mod fmod".split())
"""Functions of floats that jump."""
EXACT = frozenset("add sub mul div neg abs min max select cast".split())
"""Functions that give whole numbers for whole numbers, where there are any."""


def reaches_jump(value: Value, users: Callable[[Value], Iterable[Item]]) -> bool:
    """Whether a float comes to where its last bit decides, by way of ops that keep whole numbers whole."""
    seen, todo = {value}, [value]
    while todo:
        for user in users(todo.pop()):
            if jumps(user):
                return True
            if keeps_whole(user):
                todo += [r for r in user.results if r not in seen]
                seen.update(user.results)
    return False


def jumps(user: Item | Node) -> bool:
    """Whether a small change of an operand may change a result by much.

    >>> from effcc.ir import Builder, Tensor, f32, i32
    >>> b = Builder()
    >>> x = b.input("x", Tensor(f32, (3,)))
    >>> graph = b.graph(b.floor(x), b.cast(x, to=i32), b.lt(x, x), b.add(x, x))
    >>> [jumps(n) for n in graph.nodes]
    [True, True, True, False]
    """
    if not any(map(is_float, user.operands)):
        return False
    return not all(map(is_float, user.results)) or bool(functions(user) & WHOLE)


def keeps_whole(user: Item | Node) -> bool:
    """Whether an op gives whole numbers for whole numbers, element by element."""
    return user.op.family == "view" or (user.op.family == "elementwise" and functions(user) <= EXACT)


def is_float(value: Value) -> bool:
    return isinstance(value.type, Tensor) and value.type.dtype.is_float


def functions(user: Item | Node) -> frozenset[str]:
    """The functions of floats that an op's meaning is made of."""
    compute = user.op.compute(*(v.type for v in user.operands))
    found = compute.applied() if compute is not None else ()
    return frozenset(s.fn for s in found if any(a.dtype.is_float for a in s.args))
