"""A rule held to its contract on all small graphs around its pattern: sizes up to 3, rank up to 3, whole numbers.

    from effcc.testing import exhaust
    def test_my_rule(): exhaust(MyRule())

Where a rule is wrong, it mostly is so on a small graph (Jackson 2006, "Software Abstractions": the small scope
hypothesis). `check` draws; this leaves out nothing that is small: every shape of every hole that the ops' type rules
accept, every axis and permutation, constants of 0, 1, -1 and mixed numbers, one dtype of each kind, and whatever the
rule's own example can be. What has more than `most` graphs is sampled (effcc.testing.ways), and the count says so.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from effcc.errors import EffccError, TypeRuleError
from effcc.interp import run
from effcc.ir.builder import Builder
from effcc.ir.dims import Dim
from effcc.ir.graph import Graph, Value
from effcc.ir.lazy import torch
from effcc.ir.op import Op
from effcc.ir.types import Tensor, Type, bool_, f32, i8, i32, u8
from effcc.ir.verify import verify
from effcc.pipeline import Context
from effcc.rewrite import Rule, rewrite
from effcc.testing.compare import Mismatch, compare, random_inputs
from effcc.testing.draw import Drawer, instance
from effcc.testing.operands import OPERANDS
from effcc.testing.ways import Ways

SIZES = (2, 3, 1, 0)
MOST_RANK = 3
KINDS = (f32, i32, u8, bool_)
"""A dtype of each kind. (Those that are converted to are all there are.)"""
BYTES = (i8, u8, i32)
"""What is dequantized."""
RARE = 10
"""What an example draws with at most so many percent is large, most of the time: it is left out."""
MOST_ELEMENTS = 1024
BARREN = 1000
"""How many ways in a row may lead to no graph, or to one that was met, before the rest is given up."""
PATIENCE = 2000
"""How many graphs a rule gets at most, while it never fired."""
RUNS = ((0, False), (1, False), (2, True))
"""Inputs: (seed, with NaN and infinities)."""


@dataclass
class Exhausted:
    """How many graphs a rule was held on, out of about how many; on how many it fired."""

    instances: int = 0
    fired: int = 0
    """And both sides were compared: a graph without a value on any inputs proves nothing."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why it did not fire on the others, where it says so."""
    size: int = 0
    """How many graphs there are: estimated where not all of them were drawn."""
    complete: bool = False

    def __str__(self) -> str:
        share = f"all {self.instances}" if self.complete else f"{self.instances} of about {self.size:.2g}"
        return f"{share}: fired {self.fired}, refused {self.instances - self.fired}"


def exhaust(rule: Rule, most: int = PATIENCE, patience: int = PATIENCE) -> Exhausted:
    """Hold a rule to its contract on all small graphs around its pattern, or on `most` of them, chosen evenly (up to
    `patience`, until it fires once). Raises Mismatch where the contract is broken.

    >>> from effcc.passes.simplify import SubNeg
    >>> done = exhaust(SubNeg(), most=30)
    >>> done.instances, done.complete, done.fired > 0
    (30, False, True)
    """
    found, seen, met, last = Exhausted(), set[Graph](), 0, 0
    ways = Ways(lambda choose: SmallDrawer(choose).around(rule))
    while not ways.exhausted and ways.turns - last <= BARREN:
        graph = ways.turn()
        met += graph is not None
        if graph is None or graph in seen:
            continue
        seen.add(graph)
        last = ways.turns
        hold(rule, graph, found)
        if found.instances >= most and (found.fired or found.instances >= patience):
            break
    found.size, found.complete = round(ways.size * len(seen) / max(met, 1)), ways.exhausted
    return found


def hold(rule: Rule, graph: Graph, found: Exhausted) -> None:
    """Apply the rule alone, count what came of it, and compare. Raises Mismatch."""
    verify(graph)
    ctx = Context()
    found.instances += 1
    try:
        new = rewrite(graph, [rule], ctx)
        verify(new)
    except Exception as error:
        raise Mismatch(f"{type(error).__name__}: {error}\nbefore:\n{graph}") from error
    if new is graph:
        found.reasons.update({refusal.reason for refusal in ctx.refusals})
        return
    had_value = [compared(rule, graph, new, seed, special) for seed, special in RUNS]
    found.fired += any(had_value)


def compared(rule: Rule, before: Graph, after: Graph, seed: int, special: bool) -> bool:
    """Whether there was a value to compare, on inputs of one kind that the rule's contract covers."""
    if special and not rule.special_inputs:
        return False
    inputs = random_inputs([v.type for v in before.inputs], torch.Generator().manual_seed(seed), special)
    try:
        run(before, *inputs)
    except EffccError:  # an op has no meaning on such values
        return False
    try:
        compare(before, after, inputs, rule.contract)
    except EffccError as error:
        raise Mismatch(f"no value: {error}\nbefore:\n{before}\nafter:\n{after}") from error
    return True


def _any(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    anchor = next((t for t in types if isinstance(t, Tensor)), None)
    return Tensor(anchor.dtype if anchor else d.dtype(), d.shape())


def _first_of_rank_3(op: str) -> Callable[[Any, list[Type | None], int, str], Type]:
    """An image of one spatial axis, and what goes with it."""
    def draw(d: Drawer, types: list[Type | None], k: int, name: str) -> Type:
        return Tensor(d.dtype(), d.shape(MOST_RANK)) if k == 0 else OPERANDS[op](d, types, k, name)

    return draw


def _dequantize(d: Drawer, types: list[Type | None], k: int, name: str) -> Type:
    return Tensor(d.choose(BYTES), d.shape()) if k == 0 else OPERANDS["quantize"](d, types, k, name)


def _attention(d: Drawer, types: list[Type | None], k: int, name: str) -> Tensor:
    """Heads, positions and head sizes that fit."""
    q, key = (t if isinstance(t, Tensor) else None for t in (*types, None)[:2])
    if q is None:
        return Tensor(f32, d.shape(MOST_RANK))
    if name == "mask":
        return Tensor(d.choose((bool_, q.dtype)), d.variant((*q.shape[:-1], key.shape[-2] if key else 1)))
    return Tensor(q.dtype, (d.dim(), d.dim(), q.shape[-1]) if key is None else (*key.shape[:-1], d.dim()))


class SmallDrawer(Drawer):
    """Draws each small thing in one way, and no other."""

    operands = {**OPERANDS, "contraction": _any, "attention": _attention, "dequantize_linear": _dequantize,
                **{name: _first_of_rank_3(name) for name in ("window", "batch_norm", "grid_sample", "roi_align")}}
    dtypes = KINDS
    attempts = 1
    loose = False
    """Whether a rule fires on little of what its pattern matches, so that it has an example of its own."""

    def __init__(self, choose: Callable[[Sequence[Any]], Any]):
        self.choose, self.bounds, self.kinds = choose, {}, "fiub"

    def __getattr__(self, name: str) -> Any:
        """The shape and the dtype that a graph begins with are drawn when they are asked for."""
        if name not in ("base_shape", "base_dtype"):
            raise AttributeError(name)
        drawn = self.shape() if name == "base_shape" else self.choose([t for t in KINDS if t.kind in self.kinds])
        setattr(self, name, drawn)
        return drawn

    def around(self, rule: Rule) -> Graph:
        """An instance of the rule's pattern, or its own example. Raises NothingDrawn."""
        self.loose = type(rule).example is not Rule.example
        try:
            graph = instance(rule, self) if self.loose and self.boolean() else self.instance_once(rule.compiled)
        except TypeRuleError as error:
            return self.nothing(str(error))
        sizes = [v.tensor.size for v in graph.values if isinstance(v.type, Tensor) and v.tensor.is_static]
        return graph if max(sizes, default=0) <= MOST_ELEMENTS else self.nothing("it is large")  # type: ignore

    def chance(self, percent: int) -> bool:
        return percent > RARE and self.boolean()

    def integer(self, low: int, high: int) -> int:
        return self.choose(range(low, high + 1 if high - low < 10 else low + 3))

    def dim(self) -> int:
        return self.choose(SIZES)

    def shape(self, low: int = 0, high: int = MOST_RANK) -> tuple[int, ...]:
        rank = self.choose(range(low, max(low, min(high, MOST_RANK)) + 1))
        return tuple(self.dim() for _ in range(rank))

    def variant(self, shape: tuple[Dim, ...]) -> tuple[Any, ...]:
        """Every shape that broadcasts with `shape`: each size is the same or 1; where that is 1, any."""
        rank = self.choose(range(max(len(shape), MOST_RANK) + 1))
        beside = ((1,) * rank + shape)[-rank:] if rank else ()
        return tuple(self.choose((*SIZES,) if size == 1 else (size, 1)) for size in beside)

    def permutation(self, rank: int) -> tuple[int, ...]:
        return self.choose(list(itertools.permutations(range(rank))))

    def refactor(self, size: int) -> tuple[int, ...]:
        """Every shape of `size` elements."""
        dims = SIZES if size == 0 else [d for d in range(1, size + 1) if size % d == 0]
        shapes = [s for rank in range(MOST_RANK + 1) for s in itertools.product(dims, repeat=rank)]
        return self.choose([s for s in shapes if math.prod(s) == size])

    def application(
        self, cls: type[Op], known: Sequence[Type | None], given: dict[str, Any], attempts: int = 1,
    ) -> tuple[Op, tuple[Type, ...]]:
        """The first types and attributes; NothingDrawn where the type rule refuses them, and another way has others."""
        return super().application(cls, known, given, attempts=1)

    def dtype(self) -> Any:
        return self.base_dtype if self.base_dtype.kind in self.kinds else self.nothing("it takes other dtypes")

    def hole(self, b: Builder, name: str, type_: Type) -> Value:
        """An input; a constant too where the pattern of a rule says less than what it fires on."""
        constant = isinstance(type_, Tensor) and self.loose and self.boolean()
        return b.const(self.blob(type_)) if constant else super().hole(b, name, type_)

    def read_again(self, inner: list[Value]) -> list[Value]:
        return []
