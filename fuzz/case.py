"""A graph with inputs of several kinds, and what the interpreter says that it computes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain, islice
from operator import and_
from typing import TYPE_CHECKING, Any

from effcc.errors import EffccError, VerifyError
from effcc.fuzz.domains import meaningful_inputs, watched
from effcc.fuzz.recipe import Recipe, Subject
from effcc.interp import Known, bind_type, run
from effcc.ir import Graph, Node, Symbol, Tensor, load_ops
from effcc.ir.assumptions import Assumption, assumed
from effcc.ir.dims import substitute
from effcc.ir.lazy import torch
from effcc.ir.types import Type, type_symbols
from effcc.pipeline import Context, Pass
from effcc.testing import as_samples
from effcc.testing.compare import Fairness, Mismatch, compare_bounded, cone, random_inputs, same_bits
from effcc.testing.draw import MAX_ELEMENTS

if TYPE_CHECKING:
    from effcc.fuzz.coverage import Coverage

INPUTS_TRIED = 3
"""How often inputs of a kind are drawn until the graph has a value on some: a scale may be 0, an index out of range."""
SIZES = (2, 3, 1, 5, 4, 0, 7, 16, 17, 33)
"""What symbols are bound to where sizes drawn for them do not fit together."""
LARGEST = 4 * MAX_ELEMENTS
"""Elements of a value, at most, where sizes are symbols."""
SIZES_DRAWN, SIZES_TRIED = 100, 4
"""How often sizes are drawn for symbols, and with how many that fit together inputs are drawn."""


class Finding(AssertionError):
    """A law that does not hold: its name, one line that says how, the graph, and the passes that were run."""

    def __init__(self, law: str, message: str, graph: Graph, passes: Sequence[Pass | str] = (), inputs: Any = None):
        super().__init__(f"{law}: {message}")
        self.law, self.message, self.graph, self.inputs = law, message, graph, inputs
        self.passes = tuple(map(str, passes))


@dataclass(frozen=True)
class Profile:
    """whole: floats hold small integers, so that sums are exact in any order. special: NaN, infinities, extremes."""

    name: str
    special: bool
    whole: bool


STRICT = Profile("strict", special=False, whole=True)
SPECIAL = Profile("special", special=True, whole=True)
NUMERIC = Profile("numeric", special=False, whole=False)
PROFILES = (STRICT, SPECIAL, NUMERIC)


@dataclass
class Case:
    """A graph and one list of inputs for each profile on which it has a value."""

    graph: Graph
    inputs: dict[Profile, list[Any]] = field(default_factory=dict)
    seed: int | str = 0
    runs: dict[tuple[int, Profile], tuple[Any, ...]] = field(default_factory=dict)
    kept: list[Graph] = field(default_factory=list)
    """Graphs of `runs`, which knows them by identity."""
    known: dict[Profile, Known] = field(default_factory=dict)
    """What the nodes of these graphs gave."""
    subject: Subject = field(default_factory=Subject)
    recipe: Recipe = field(default_factory=Recipe)
    coverage: Coverage | None = None
    """What watches the passes that laws run."""

    @staticmethod
    def of(
        graph: Graph, seed: int | str, profiles: Sequence[Profile] = PROFILES, most: int = len(PROFILES),
        subject: Subject | None = None, recipe: Recipe | None = None, coverage: Coverage | None = None,
    ) -> Case:
        """Inputs drawn for the first profiles, `most` of them, on which the graph has a value, and a recipe where none
        is given; Finding where the interpreter breaks the graph's own types."""
        chance = random.Random(f"case {seed}")
        subject = subject or Subject()
        recipe = recipe or subject.draw(random.Random(f"recipe {seed}"))
        case = Case(graph, {}, seed, subject=subject, recipe=recipe, coverage=coverage)
        for sizes in fitting_sizes(graph, chance) if graph.symbols else ({},):
            case.draw([bind_type(v.type, sizes) for v in graph.inputs], profiles, most, chance.getrandbits(32))
            if case.inputs:
                break
        return case

    def draw(self, types: list[Type], profiles: Sequence[Profile], most: int, seed: int) -> None:
        """Inputs of these types for each profile on which the graph has a value."""
        if not all(isinstance(t, Tensor) for t in types):
            return
        converts = all(n.op.family in ("view", "constant") or n.op.name == "cast" for n in self.graph.nodes)
        for profile in profiles:
            for attempt in range(INPUTS_TRIED):
                if len(self.inputs) == most:
                    return
                generator = torch.Generator().manual_seed(seed + PROFILES.index(profile) + len(PROFILES) * attempt)
                drawn = random_inputs(types, generator, profile.special, profile.whole, converts)
                if self.take(profile, meaningful_inputs(self.graph, drawn)):
                    break

    def take(self, profile: Profile, inputs: list[Any]) -> bool:
        """Whether the graph has a value on these inputs, which are then kept."""
        self.inputs[profile] = inputs
        try:
            with watched(self.graph) as strayed:
                self.run(self.graph, profile)
            if not strayed:
                return True
            del self.runs[id(self.graph), profile]
        except VerifyError as error:
            if not self.graph.symbols and not _undefined(error):  # (type rules cannot refuse what sizes decide)
                raise Finding("meaning", error.message, self.graph, inputs=inputs) from error
        except EffccError:  # sizes that do not fit together, values on which an op has no meaning
            pass
        del self.inputs[profile]
        self.known.pop(profile, None)
        return False

    def context(self) -> Context:
        """The surroundings of passes: the target's machine, and the inputs as calibration data."""
        plain = [inputs for profile, inputs in self.inputs.items() if not profile.special]
        return Context(machine=self.subject.backend.machine, calibration=as_samples(self.graph, plain))

    def run_pass(self, p: Pass, graph: Graph, ctx: Context) -> Graph:
        """What a pass makes of a graph, watched where coverage is wanted."""
        return p.run(graph, ctx) if self.coverage is None else self.coverage.run(p, graph, ctx)

    def chance(self, law: str) -> random.Random:
        """A law's own random draws: the same whichever laws went before it."""
        return random.Random(f"{law} {self.seed}")

    def run(self, graph: Graph, profile: Profile) -> tuple[Any, ...]:
        """What a graph (this one, or what passes made of it) computes on the inputs of a profile."""
        key = id(graph), profile
        if key not in self.runs:
            self.runs[key] = run(graph, *self.inputs[profile], known=self.known.setdefault(profile, {}))
            self.kept.append(graph)
        return self.runs[key]

    def fair(self, profile: Profile, *graphs: Graph) -> Fairness:
        """What may be asked of runs of these graphs."""
        return reduce(and_, (Fairness.of(graph, self.inputs[profile]) for graph in graphs))

    def is_ordinary(self, graph: Graph, profile: Profile) -> bool:
        """Whether no op of a graph makes NaN, or infinity of finite numbers, on inputs that are not special."""
        strange = profile.special

        def see(node: Node, operands: tuple[Any, ...], results: tuple[Any, ...]) -> None:
            nonlocal strange
            finite = all(map(_is_finite, operands))
            from_finite = bool(node.operands) and finite
            strange |= any(_has_nan(x) or (from_finite and not _is_finite(x)) for x in results)
            strange |= bool(node.op.graphs()) and not finite  # (an infinite constant is an input to nested graphs)

        if not strange:
            run(graph, *self.inputs[profile], observe=see)
        return not strange

    def equal(self, law: str, before: Graph, after: Graph, contract: str = "exact", passes: Sequence[Pass | str] = (),
              special: bool = True) -> None:
        """Finding where two graphs differ on any inputs: in bits, or beyond the bounds of rounding where bits cannot be
        asked. special: whether a contract covers NaN and infinities."""
        if [v.type for v in before.results] != [v.type for v in after.results]:
            raise Finding(law, "the result types differ", self.graph, passes)
        for profile, inputs in self.inputs.items():
            wanted, found = self.run(before, profile), self.run(after, profile)
            if contract == "approximate":  # that it has a value is all
                continue
            differing = [k for k, (w, f) in enumerate(zip(wanted, found, strict=True)) if not same_bits(w, f)]
            if not differing or (not special and not self.is_ordinary(before, profile)):
                continue
            fair = {k: self.fair(profile, cone(before, k), cone(after, k)) for k in differing}
            differing = [k for k in differing if not same_bits(wanted[k], found[k], fair[k].signed_zeros)]
            for k in differing:
                if contract == "exact" and fair[k].bitwise:
                    said = f"result {k} differs in bits on {profile.name} inputs"
                    raise Finding(law, said, self.graph, passes, inputs)
            if not differing:
                continue
            try:
                compare_bounded(before, after, inputs, wanted, found, contract)
            except Mismatch as error:
                message = f"{profile.name}: {str(error).splitlines()[0]}"
                raise Finding(law, message, self.graph, passes, inputs) from None


def _has_nan(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point() and bool(x.isnan().any())


def _is_finite(x: Any) -> bool:
    return not isinstance(x, torch.Tensor) or not x.is_floating_point() or bool(x.isfinite().all())


def fitting_sizes(graph: Graph, chance: random.Random) -> Iterator[dict[Symbol, int]]:
    """Sizes for the symbols of the inputs, for which all holds that the type rules assume, and no value is huge, or
    has sizes below 0: a few of those drawn, or of equal ones."""
    symbols = sorted(set().union(*(type_symbols(v.type) for v in graph.inputs)), key=str)
    assumptions = [a for node in graph.walk() for a in assumed(node)]
    drawn = ({s: draw_size(s, chance) for s in symbols} for _ in range(SIZES_DRAWN))
    equal = (dict.fromkeys(symbols, n) for n in (*SIZES, *range(max(SIZES))))
    varying = {v.tensor.size for v in graph.values if isinstance(v.type, Tensor) and not v.tensor.is_static}
    dims = {d for v in graph.values if isinstance(v.type, Tensor) for d in v.shape if not isinstance(d, int)}

    def fit(sizes: dict[Symbol, int]) -> bool:
        allowed = all(s.lo <= n <= (s.hi or n) for s, n in sizes.items())
        small = (not isinstance(n := substitute(size, sizes), int) or n <= LARGEST for size in varying)
        some = (not isinstance(n := substitute(d, sizes), int) or n >= 0 for d in dims)
        return allowed and all(small) and all(some) and all(may_hold(a, sizes) for a in assumptions)

    return islice(filter(fit, chain(drawn, equal)), SIZES_TRIED)


def may_hold(assumption: Assumption, sizes: dict[Symbol, int]) -> bool:
    """Whether it is so for these sizes, or depends on those that ops tell."""
    try:
        return assumption.holds(sizes)
    except KeyError:
        return True


def draw_size(symbol: Symbol, chance: random.Random) -> int:
    """A size in the symbol's range: often its least."""
    top = min(symbol.lo + 9, symbol.lo + 9 if symbol.hi is None else symbol.hi)
    fitting = [n for n in (1, 16, 17, 33) if n >= symbol.lo and (symbol.hi is None or n <= symbol.hi)]
    return chance.choice((symbol.lo, chance.randint(symbol.lo, top), chance.randint(symbol.lo, top), *fitting))


def _undefined(error: VerifyError) -> bool:
    """Whether an op was given values on which it has no meaning: an index out of range, or what it says itself."""
    name = error.message.partition("(")[0]
    known = name in load_ops() and load_ops()[name].undefined
    return bool(known) or "out of range" in error.message or "out of bounds" in error.message
