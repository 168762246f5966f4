"""Rules and passes held against their contracts on graphs made for them, and what became of each rule.

    tally = RuleTally()
    exercise_rule(rule, owners, key="0 7", tally)       # one instance or near miss of its pattern
    exercise_pass(find_pass("tome"), key="0 7")         # one of the pass's own examples, with drawn options

A key tells one drawing from another. Both raise `effcc.fuzz.case.Finding` where a contract is broken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

from effcc import machine
from effcc.errors import EffccError, InputError
from effcc.fuzz.case import SPECIAL, Case, Finding
from effcc.fuzz.generate import GraphDrawer, in_branch, in_loop
from effcc.fuzz.near_miss import ATTEMPTS, changed, drawn
from effcc.fuzz.recipe import promising
from effcc.fuzz.surround import surrounded
from effcc.ir import Graph, Node, verify
from effcc.ir.location import Loc
from effcc.pipeline import Context, Pass, with_options
from effcc.pipeline.text import parse_pass
from effcc.rewrite import Rule, rewrite
from effcc.testing import as_samples, example
from effcc.testing.contracts import Contract, covers_special, holds
from effcc.testing.draw import NothingDrawn
from effcc.testing.search import Choices

MACHINES = ("cpu{mcpu=haswell}", "cpu{mcpu=icelake-server}", "cpu{mcpu=x86-64}")
WRONG = ("", "-1", "0", "2", "-0.5", "1.5", "nonsense", "0x0", "-1+2", "true")
"""What is written for options against their meaning."""


@dataclass
class RuleTally:
    """How often a rule fired on drawn graphs, was refused for which reasons, and did not match a near miss."""

    fired: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unmatched: int = 0
    undrawn: int = 0

    @property
    def never(self) -> str | None:
        """What did not happen, None where both did. Where nobody ever said why not, that it did not match counts."""
        if not self.fired:
            return "never fired"
        return None if self.refused or self.unmatched else "never refused"


def drawer(key: str) -> GraphDrawer:
    return GraphDrawer(Choices(rest=random.Random(key)), near_misses=0)


def exercise_rule(rule: Rule, owners: Sequence[Pass], key: str, tally: RuleTally) -> None:
    """The rule alone, then the passes that have it, on a graph around an instance or a near miss of its pattern."""
    d = drawer(f"{rule.name} {key}")
    try:
        graph = drawn(d, rule)
        graph = surrounded(d, graph) if d.chance(40) else graph
        verify(graph)
    except NothingDrawn:
        tally.undrawn += 1
        return
    case = Case.of(graph, key)
    ctx = Context()
    new = checked(case, f"rule {rule.name}", graph, lambda: rewrite(graph, [rule], ctx), rule.contract,
                  lambda: rule.special_inputs)
    fired = len(ctx.log)
    tally.fired += fired
    tally.refused.update(refusal.reason for refusal in ctx.refusals)
    tally.unmatched += not fired and not ctx.refusals
    if new is not graph and fired > 1:
        fuel = Context(fuel=d.integer(0, fired - 1))
        checked(case, f"rule {rule.name} {fuel.fuel} times", graph, lambda: rewrite(graph, [rule], fuel), rule.contract,
                lambda: rule.special_inputs)
    for p in owners:
        run_pass(p, case, d)


def exercise_pass(cls: type[Pass], key: str) -> None:
    """The pass with drawn options, on one of its own examples, on one that was changed, or on any graph."""
    d = drawer(f"{cls.name} {key}")
    promise, method = None, "example"
    p = drawn_options(d, cls)
    special = Contract.of(p.contract).drawn
    if special and d.chance(40):
        promise, method, settings = d.choose(special)
        p = with_options(cls(), settings)
    try:
        own = getattr(cls, method) is not getattr(Pass, method, None) and d.chance(80)
        graph = example(p, d, method) if own or promise else d.graph()
        if promise is None and d.chance(50):
            for _ in range(d.integer(1, 8)):
                graph = changed(d, graph)
        if promise is None and holds(p) != "quantized" and d.chance(30):  # (quanta in branches are in no bound)
            graph = d.or_same(d.choose((in_branch, in_loop)), graph)
        if promise is None and d.chance(30):
            graph = after_passes(d, graph, p)
    except NothingDrawn:
        return
    graph = located(graph)
    verify(graph)
    run_pass(p, Case.of(graph, key), d, promise)


def after_passes(d: GraphDrawer, graph: Graph, p: Pass) -> Graph:
    """The graph behind up to three passes that promise something: what they make is what others meet, or they again."""
    for _ in range(d.integer(1, 3)):
        with contextlib.suppress(EffccError):
            graph = (p if d.chance(30) else d.choose(promising())).run(graph, Context())
    return graph


def located(graph: Graph) -> Graph:
    """Every node at a place of its own, as in a model: options name places."""
    nodes = [Node(n.op, n.operands, n.results, Loc("fuzzed", f"op{k}")) for k, n in enumerate(graph.nodes)]
    return graph.with_nodes(tuple(nodes))


def drawn_options(d: GraphDrawer, cls: type[Pass]) -> Pass:
    """The pass with some options drawn; those that do not go together are drawn again."""
    hints = get_type_hints(cls)
    for _ in range(ATTEMPTS):
        values: dict[str, Any] = {}
        for f in dataclasses.fields(cls):
            if d.boolean():
                continue
            if f.name in cls.choices:
                values[f.name] = d.choose(cls.choices[f.name])
            elif f.name in cls.searchable:
                span = cls.searchable[f.name]
                values[f.name] = span.value(d.integer(0, 4 if span.last is None else span.last))
            elif hints[f.name] is bool:
                values[f.name] = d.boolean()
        try:
            return cls(**values)
        except ValueError:
            continue
    return cls()


def wrong_options(cls: type[Pass]) -> None:
    """Whatever is written for an option, the pass is made, or says in one line why not."""
    for f in dataclasses.fields(cls):
        for text in WRONG:
            with contextlib.suppress(EffccError):
                parse_pass(f"{cls.name}:{f.name}={text}")


def drawn_context(d: GraphDrawer, case: Case, promise: str) -> Context:
    """A machine or none, calibration data or none, measured times that mean nothing, fuel that ends."""
    plain = [inputs for profile, inputs in case.inputs.items() if not profile.special]
    if promise == "approximate" and d.chance(10) and SPECIAL in case.inputs:
        plain = [case.inputs[SPECIAL]]
    return Context(
        machine=machine.parse(d.choose(MACHINES)) if d.boolean() else None,
        calibration=as_samples(case.graph, plain) if d.chance(80) else None,
        measure=(lambda graph: d.choose((1.0, 2.0, 0.5))) if d.chance(40) else None,
        fuel=d.integer(0, 3) if d.chance(25) else None,
    )


def run_pass(p: Pass, case: Case, d: GraphDrawer, promise: str | None = None) -> Graph:
    """The graph after a pass, held to a promise (else to its contract), a second run too where it is idempotent."""
    promise = promise or holds(p)
    graph, ctx = case.graph, drawn_context(d, case, promise)
    new = checked(case, f"pass {p}", graph, lambda: p.run(graph, ctx), promise,
                  lambda: covers_special(p, {done.rule for done in ctx.log}), str(p))
    if new is not graph and Contract.of(p.contract).idempotent and ctx.fuel is None:
        again = p.run(new, replace(ctx, log=[], refusals={}, notes=[]))
        if again != new and ctx.measure is None:
            raise Finding("idempotent", f"a second run of {p} changed the result again", graph, (str(p),))
    return new


def checked(
    case: Case, law: str, graph: Graph, change: Callable[[], Graph], contract: str, special: Callable[[], bool],
    *passes: str,
) -> Graph:
    """What `change` makes of a graph: verified, and equal by the contract. InputErrors are refusals."""
    try:
        new = change()
        if new is not graph:
            verify(new)
    except InputError:
        return graph
    except Exception as error:
        raise Finding(law, f"{type(error).__name__}: {error}", graph, passes) from error
    if new is not graph:
        try:
            case.equal(law, graph, new, contract, passes, special())
        except EffccError as error:
            raise Finding(law, f"no value: {error.message}", graph, passes) from error
    return new
