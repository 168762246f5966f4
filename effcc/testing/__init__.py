"""The whole fuzzer in one line for the author of a rule or a pass.

    from effcc.testing import check
    def test_my_rule(): check(MyRule())

`check` draws instances of the rule's pattern (or, for a pass, random well-typed graphs), runs both sides in the
interpreter on drawn inputs, and compares by the declared contract. `exhaust` holds a rule on all small graphs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from effcc.errors import EffccError
from effcc.interp import run
from effcc.ir.graph import Graph
from effcc.ir.lazy import torch
from effcc.ir.types import Tensor
from effcc.ir.verify import verify
from effcc.pipeline import Context, Pass, with_options
from effcc.rewrite import Rule, rewrite
from effcc.testing.compare import Mismatch, compare, random_inputs
from effcc.testing.contracts import Contract
from effcc.testing.draw import Drawer, NothingDrawn, drawable_ops, example, instance
from effcc.testing.exhaustive import exhaust
from effcc.testing.instrument import Check
from effcc.testing.search import Choices, Search

SHRINK_SECONDS = 10.0
"""How long a failure is made smaller."""


@dataclass
class Tally:
    """What a check did: how many examples, how many were rewritten, why the others were not."""

    drawn: int = 0
    fired: int = 0
    undrawn: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.drawn + other.drawn, self.fired + other.fired, self.undrawn + other.undrawn,
                     self.refusals + other.refusals)


def check(target: Rule | Pass, examples: int = 100, seed: int = 0, must_fire: bool | None = None) -> Tally:
    """Hold a rule or a pass against the interpreter.

    A rule must fire at least once (`must_fire`), else the check proves nothing and fails, saying why it refused. A
    pass is checked on instances of each of its rules, on its own example, and on random graphs. What is
    checked is what the contract declares (effcc.testing.contracts): a pass that is exact for some options is checked
    with these too, one that is only approximate otherwise for types and for having a value.
    Raises Mismatch with the smallest graph found, before and after; returns what was tried.
    """
    if isinstance(target, Rule):
        return _search(lambda d: instance(target, d), lambda g, ctx: rewrite(g, [target], ctx), target.contract,
                       examples, seed, target.name if must_fire is not False else None, target.special_inputs)
    contract = Contract.of(target.contract)
    tally = sum((_check_pass(p, promise, contract.idempotent, examples, seed)
                 for p, promise in contract.promises(target)), Tally())
    for promise, method, settings in contract.drawn:
        p = with_options(target, settings)
        tally += _search(lambda d, p=p, method=method: example(p, d, method), p.run, promise, max(examples // 4, 3),
                         seed, None, p.special_inputs)
    if must_fire and not tally.fired:
        raise AssertionError(f"{target}: none of {tally.drawn} drawn graphs was changed; the check proves nothing")
    return tally


def _check_pass(target: Pass, contract: str, idempotent: bool, examples: int, seed: int) -> Tally:
    tally = Tally()
    share = max(examples // (2 * max(len(target.rules), 1)), 3)
    for rule in target.rules:
        tally += _search(lambda d, rule=rule: instance(rule, d), target.run, contract, share, seed, None,
                         rule.special_inputs and target.special_inputs, rules=target.rules)
    if type(target).example is not Pass.example:
        tally += _search(lambda d: example(target, d), target.run, contract, examples, seed, None,
                         target.special_inputs, idempotent, target.rules)
    classes = drawable_ops()
    return tally + _search(lambda d: d.random_graph(classes, d.integer(1, 8)), target.run, contract, examples, seed,
                           None, target.special_inputs, idempotent, target.rules)


def _search(draw_graph: Any, change: Any, contract: str, examples: int, seed: int, must_fire: str | None,
            special: bool = True, idempotent: bool = False, rules: Sequence[Rule] = ()) -> Tally:
    tally = Tally()

    def attempt(choices: Choices) -> None:
        drawer = Drawer(choices)
        try:
            graph = draw_graph(drawer)
        except NothingDrawn as why:
            tally.undrawn[str(why)] += 1
            return
        _try(graph, change, contract, drawer, tally, special, idempotent, rules)

    Search(attempt, Mismatch, SHRINK_SECONDS).run(examples, seed)
    if must_fire and not tally.fired:
        reasons = "; ".join(f"{why} ({count})" for why, count in (tally.refusals + tally.undrawn).most_common(3))
        raise AssertionError(f"rule {must_fire} never fired on {tally.drawn} drawn instances of its pattern, so the "
                             f"check proves nothing: {reasons or 'no instance matched'}")
    return tally


def _try(graph: Graph, change: Any, contract: str, drawer: Drawer, tally: Tally, allow_special: bool,
         idempotent: bool, rules: Sequence[Rule]) -> None:
    verify(graph)
    tally.drawn += 1
    profiles = [(False, True)]  # (special values, whole numbers)
    profiles += [(True, True)] if allow_special else []
    profiles += [(False, False)] if contract != "exact" else []
    drawn = [_inputs(graph, drawer, special, whole) for special, whole in profiles]
    plain = [inputs for inputs, (special, _) in zip(drawn, profiles) if inputs is not None and not special]
    samples = as_samples(graph, plain)
    ctx = Context(calibration=samples)
    try:
        changed = change(graph, ctx)
        if changed is not graph:
            verify(changed)
            if idempotent and (again := change(changed, Context(calibration=samples))) != changed:
                raise Mismatch(f"a second run changed the result again\nbefore:\n{changed}\nafter:\n{again}")
    except EffccError as error:
        raise Mismatch(f"{error}\nbefore:\n{graph}") from error
    tally.refusals.update(r.reason for r in ctx.refusals)
    if changed is graph:
        return
    tally.fired += 1
    fired = {entry.rule for entry in ctx.log}
    covered = all(rule.special_inputs for rule in rules if rule.name in fired)
    for inputs, (special, _) in zip(drawn, profiles, strict=True):
        if inputs is not None and (covered or not special):
            compare(graph, changed, inputs, contract)


def _inputs(graph: Graph, drawer: Drawer, special: bool, whole: bool) -> list[Any] | None:
    """Inputs on which the graph has a value."""
    generator = torch.Generator().manual_seed(drawer.integer(0, 999))
    inputs = random_inputs([v.type for v in graph.inputs], generator, special, whole)
    try:
        run(graph, *inputs)
    except EffccError:
        return None
    return inputs


def as_samples(graph: Graph, runs: list[list[Any]]) -> Any:
    """The inputs of runs as calibration data: a pass that looks at activations sees those that it is checked on."""
    import numpy as np

    from effcc.ir.blob import Blob
    from effcc.search.data import Samples

    if not runs or not graph.inputs or not all(isinstance(v.type, Tensor) for v in graph.inputs):
        return None
    arrays = tuple(np.stack([Blob.from_torch(t).array for t in column]) for column in zip(*runs, strict=True))
    return Samples(tuple(v.tensor for v in graph.inputs), arrays)


__all__ = ["Check", "Mismatch", "Tally", "as_samples", "check", "compare", "example", "exhaust", "instance",
           "random_inputs"]
