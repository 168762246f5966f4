"""What becomes of sample calls of a torch function under `torch.compile(backend="effcc", fullgraph=True)`.

Several calls are compiled as one function, and the results of each are compared with eager torch's as `agreement.py`
says. Calls whose results are right have passed. A call whose results are not is judged again alone, and where the
function as a whole fails its halves are judged, so that whatever does not pass is known from a function that makes this
one call. What goes wrong in company only does not pass either.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from generated import assert_generated, no_meanings

from effcc.fuzz.limit import OutOfTime, limited

DRAWS = 24
"""Runs of a random op that make up its distribution."""
INDEXES = {"sort": 1, "msort": 1, "argsort": 1, "topk": 2, "kthvalue": 2, "median": 1, "nanmedian": 1, "mode": 1}
"""Ops whose indices are torch's to choose among equal elements, and the position of their `dim`."""
UNINITIALISED = frozenset("empty empty_like empty_permuted empty_strided new_empty new_empty_strided resize_ "
                          "resize_as_".split())  # fmt: skip


@dataclass(frozen=True)
class Op:
    """What is called. reference: what computes in f64 what torch has no good f64 of (docs/upstream), or None."""

    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Sample:
    """One call: what a function takes, apart from tensors that a call may overwrite."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def fresh(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """A copy with the strides and the sharing of memory of the original, where there are any."""
        import torch
        from torch.utils._pytree import tree_map

        memo: dict[int, Any] = {}

        def copied(x: Any) -> Any:
            if isinstance(x, torch.Tensor) and x.layout != torch.strided:
                return x.clone()
            return copy.deepcopy(x, memo) if isinstance(x, torch.Tensor) else x

        return tree_map(copied, (self.args, self.kwargs))


@dataclass(frozen=True)
class Outcome:
    """What became of one sample: pass, refused, wrong or crash."""

    kind: str
    reason: str = ""

    @property
    def torchs(self) -> bool:
        """Whether it is refused by torch, not by effcc."""
        return self.reason.startswith("torch: ")


Leaves = tuple[list[Any], Any]
"""The leaves of a result, and its structure."""


def seed(number: int) -> None:
    import numpy as np
    import torch

    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


# --- groups ---
def judge(op: Op, group: list[Sample], limit: float) -> list[Outcome]:
    """The outcome of each sample. limit: seconds of the processor's time for one function."""
    try:
        outcomes = _outcomes(op, group, limit)
    except (Exception, OutOfTime) as e:
        return _parts(op, group, limit, e) if len(group) > 1 else [_failed(op, group, e, limit)]
    for k, found in enumerate(outcomes if len(group) > 1 else ()):
        if found.kind != "pass":
            (alone,) = judge(op, group[k : k + 1], limit)
            outcomes[k] = alone if alone.kind != "pass" else Outcome(found.kind, f"{_company(group)}: {found.reason}")
    return outcomes


def _parts(op: Op, group: list[Sample], limit: float, error: BaseException) -> list[Outcome]:
    """The outcomes of a group that fails as a whole: those of its first call, and of the others one by one where that
    fails, too, else by halves; unless it is the whole alone that fails, and for a reason that is not torch's."""
    outcomes = judge(op, group[:1], limit)
    middle = 1 + len(group) // 2
    bounds = [1, middle, len(group)] if outcomes[0].kind == "pass" else range(1, len(group) + 1)
    for begin, end in itertools.pairwise(bounds):
        outcomes += judge(op, group[begin:end], limit) if begin < end else []
    if isinstance(error, OutOfTime) or any(o.kind != "pass" for o in outcomes):
        return outcomes
    whole = _failed(op, group, error, limit)
    return outcomes if whole.torchs else [Outcome(whole.kind, f"{_company(group)}: {whole.reason}")] * len(group)


def _company(group: list[Sample]) -> str:
    return f"beside {len(group) - 1} other calls, but not alone"


def _outcomes(op: Op, group: list[Sample], limit: float) -> list[Outcome]:
    """The outcomes of a group in one function; what is raised there is no single sample's, if there are several."""
    import torch

    if len(group) == 1:
        try:
            with limited(limit):
                calls(op, group)(*fresh(group))
        except OutOfTime:
            return [Outcome("crash", "eager torch: time limit")]
        except Exception as e:
            return [Outcome("refused", f"torch: eager fails: {line(e)}")]
    with limited(limit), torch.no_grad(), watching() as watch:
        return _Comparison(op, group, watch).outcomes()


def calls(op: Op, group: list[Sample]) -> Callable[..., Any]:
    """One function that makes every call of a group."""
    function = op.function

    def group_function(*given: Any) -> Any:
        return [function(*args, **kwargs) for args, kwargs in given]

    return group_function


def fresh(group: list[Sample]) -> list[Any]:
    return [s.fresh() for s in group]


def compiled(function: Callable[..., Any], backend: str = "effcc") -> Callable[..., Any]:
    import torch

    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True)


@dataclass
class Watch:
    """What the backend does: its programs must be generated code; `bounds` makes them give rounding bounds instead."""

    bounds: bool = False
    programs: list[Any] = field(default_factory=list)


@contextlib.contextmanager
def watching() -> Iterator[Watch]:
    """Inside, every graph that torch.compile hands to effcc is run under watch."""
    from effcc.analysis.precision import bounded_run
    from effcc.frontends.torch import dynamo

    watch = Watch()
    compiled = dynamo.Compiled

    class Watched(compiled):
        def __init__(self, *args: Any):
            super().__init__(*args)
            assert self.program is not None, "a program that is built at its first call"
            self.program, self.generated = self.watched, self.program
            watch.programs.append(self.generated)

        def watched(self, *tensors: Any) -> Any:
            if watch.bounds:
                return [b.bound for b in bounded_run(self.imported.graph, *tensors)]
            with no_meanings():
                results = self.generated(*tensors)
            assert_generated(self.generated)
            return results

    dynamo.Compiled = Watched  # type: ignore[misc]
    try:
        yield watch
    finally:
        dynamo.Compiled = compiled  # type: ignore[misc]


# --- results ---
class _Comparison:
    """The compiled function of a group beside torch."""

    def __init__(self, op: Op, group: list[Sample], watch: Watch):
        self.op, self.group, self.watch = op, group, watch
        self.torchs = calls(op, group)
        self.ours = compiled(self.torchs)
        self.exact, self.bounds = cache(self._exact), cache(self._bounds)

    def outcomes(self) -> list[Outcome]:
        got, want, again = self.run(self.ours, 0), self.run(self.torchs, 0), self.run(self.torchs, 1)
        if self.op.name in INDEXES:
            for results in (got, want, again):
                results[:] = [_at_indices(self.op.name, s, *r) for s, r in zip(self.group, results, strict=True)]
        drawn = [k for k, (a, b) in enumerate(zip(want, again, strict=True)) if not _same_values(a[0], b[0])]
        if self.op.name in UNINITIALISED:
            drawn = []
        outcomes = {k: self.compared(k, got[k], want[k]) for k in range(len(self.group)) if k not in drawn}
        drawn += self.seldom_others([k for k, found in outcomes.items() if found.kind == "wrong"], want)
        outcomes |= self.distributed(drawn) if drawn else {}
        return [outcomes[k] for k in range(len(self.group))]

    def seldom_others(self, suspects: list[int], want: list[Leaves]) -> list[int]:
        """Which calls have other results under some further seed, in torch: few elements are seldom dropped."""
        runs = [self.run(self.torchs, number) for number in range(2, DRAWS)] if suspects else []
        return [k for k in suspects if any(not _same_values(want[k][0], again[k][0]) for again in runs)]

    def run(self, function: Callable[..., Any], number: int) -> list[Leaves]:
        """What each call gives, under a seed."""
        from torch.utils._pytree import tree_flatten

        seed(number)
        return [tree_flatten(r) for r in function(*fresh(self.group))]

    def compared(self, k: int, ours: Leaves, theirs: Leaves) -> Outcome:
        """Is the k-th call's result torch's?"""
        from agreement import difference

        if ours[1] != theirs[1]:
            return Outcome("wrong", f"the structure {ours[1]}, not {theirs[1]}")
        if self.op.name in UNINITIALISED:
            same = _same_types(ours[0], theirs[0])
            return Outcome("pass", "uninitialised") if same else Outcome("wrong", "another type")
        for n, (got, want) in enumerate(zip(ours[0], theirs[0], strict=True)):
            exact, bound = (lambda n=n: _leaf(self.exact(k), n)), (lambda n=n: _leaf(self.bounds()[k], n))
            found = difference(got, want, exact, bound)
            if found is not None:
                return Outcome("wrong", f"result {n} {found}")
        return Outcome("pass")

    def _exact(self, k: int) -> Leaves | None:
        """The k-th call in f64, special functions by OpInfo's own reference where it names one."""
        import torch
        from agreement import exact_run, widened
        from torch.utils._pytree import tree_flatten

        sample = self.group[k]
        result = exact_run(lambda given: self.op.function(*given[0], **given[1]), [sample.fresh()])
        if result is None:
            return None
        if self.op.reference is not None:
            with contextlib.suppress(Exception):
                arrays = [widened(x.detach().clone()).numpy() for x in sample.args if isinstance(x, torch.Tensor)]
                truth = torch.as_tensor(self.op.reference(*arrays, **sample.kwargs))
                if truth.shape == result.shape and truth.dtype == torch.float64:
                    result = truth
        return tree_flatten(result)

    def _bounds(self) -> list[Leaves]:
        """By how much rounding may move each result."""
        self.watch.bounds = True
        try:
            return self.run(self.ours, 0)
        finally:
            self.watch.bounds = False

    def distributed(self, drawn: list[int]) -> dict[int, Outcome]:
        """The outcomes of calls whose results differ from seed to seed: equal under one, not under others, and
        distributed as torch's."""
        import torch
        from agreement import distributions_differ

        def draw(function: Callable[..., Any], number: int) -> list[list[Any]]:
            return [[torch.as_tensor(x) for x in leaves] for leaves, _ in self.run(function, number)]

        def outcome(ours: list[list[Any]], theirs: list[list[Any]], repeated: list[Any]) -> Outcome:
            if not _same_values(ours[0], repeated):
                return Outcome("wrong", "differs between two runs under one seed")
            if not _same_types(ours[0], theirs[0]):
                return Outcome("wrong", "another type")
            for n in range(len(ours[0])):
                a, b = (torch.stack([r[n].flatten() for r in runs]) for runs in (ours, theirs))
                if bool((a == a[0]).all()) and not bool((b == b[0]).all()):
                    return Outcome("wrong", "the same under every seed")
                if (apart := distributions_differ(a, b)) is not None:
                    return Outcome("wrong", f"result {n} is {apart}")
            return Outcome("pass", "random")

        repeated = draw(self.ours, 0)
        ours, theirs = ([draw(f, n) for n in range(DRAWS)] for f in (self.ours, self.torchs))
        return {k: outcome([r[k] for r in ours], [r[k] for r in theirs], repeated[k]) for k in drawn}


def _at_indices(name: str, sample: Sample, results: list[Any], structure: Any) -> Leaves:
    """Results with each index (along `dim`) replaced by the element that it leads to; a repeated one by NaN or -1."""
    import torch

    x, position = sample.args[0], INDEXES[name]
    reduces = name not in ("sort", "argsort", "topk")
    if sample.kwargs.get("stable") or not x.dim() or (reduces and not {"dim"} & set(sample.kwargs)
                                                      and len(sample.args) <= position):  # fmt: skip
        if name != "kthvalue" and name != "mode":
            return results, structure
    dim = sample.kwargs.get("dim", sample.args[position] if len(sample.args) > position else -1)
    if not isinstance(dim, int) or isinstance(dim, bool) or not x.dim():
        return results, structure
    out = list(results)
    at = out[-1]
    whole = at if at.dim() == x.dim() else at.unsqueeze(dim)
    picked = x.gather(dim, whole)
    ordered = whole.sort(dim).values
    if whole.size(dim) > 1:
        twice = (ordered.diff(dim=dim) == 0).any()
        picked = torch.full_like(picked, -1) if twice else picked
    out[-1] = picked if at.dim() == x.dim() else picked.squeeze(dim)
    return out, structure


def _leaf(leaves: Leaves | None, n: int) -> Any:
    values = [] if leaves is None else leaves[0]
    return values[n] if n < len(values) and hasattr(values[n], "shape") else None


def _same_types(a: list[Any], b: list[Any]) -> bool:
    return [(getattr(x, "shape", x), getattr(x, "dtype", 0)) for x in a] == [
        (getattr(x, "shape", x), getattr(x, "dtype", 0)) for x in b
    ]


def _same_values(a: list[Any], b: list[Any]) -> bool:
    import torch

    def same(x: Any, y: Any) -> bool:
        if not isinstance(x, torch.Tensor):
            return x == y or x != x
        return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())

    return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))


# --- failures ---
def _failed(op: Op, group: list[Sample], error: BaseException, limit: float) -> Outcome:
    """Refused by name, impossible for any backend, or a crash."""
    from effcc.errors import EffccError

    if isinstance(error, OutOfTime):
        return Outcome("crash", f"more than {limit:g} s")
    for e in chain(error):
        if isinstance(e, EffccError):
            return Outcome("refused", re.sub(r"\s+", " ", e.message)[:300])  # without the place: it is in this file
    for backend, who in (("eager", "Dynamo"), ("aot_eager", "AOTAutograd")):
        try:
            with limited(limit):
                compiled(calls(op, group), backend)(*fresh(group))
        except Exception as e:
            return Outcome("refused", f"torch: {who} cannot trace it for any backend: {line(e)}")
    return Outcome("crash", line(list(chain(error))[-1]))


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it stands for."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        e = todo.pop(0)
        if e is not None and id(e) not in seen:
            seen.add(id(e))
            yield e
            todo += [getattr(e, "inner_exception", None), e.__cause__]


def line(error: BaseException) -> str:
    """An exception in one line, without paths and numbers that differ from run to run."""
    text = str(error).split("\n\n")[0]
    text = re.sub(r"\s+", " ", f"{type(error).__name__}: {text}").strip()
    text = re.sub(r"0x[0-9a-f]+", "0x...", re.sub(r"(\S*/)+site-packages/", "", text))
    return text[:300]
