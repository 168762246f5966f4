"""PyTorch's OpInfo through `torch.compile(backend="effcc")`: every op, dtype and sample input.

    python tests/conformance/opinfo.py --jobs 2              # all samples: hours
    python tests/conformance/opinfo.py --samples 3 --only "^nn.functional"

A case is an entry of `op_db` with one of Inductor's six dtypes. Its sample inputs are compiled with fullgraph=True,
several in one function (a group that fails is halved until single samples are left), and compared with eager torch as
`agreement.py` says. A case ends as

    pass      every sample compiled, every launch was generated code, every result is right
    refused   effcc refuses a sample by name, or torch cannot trace it for any backend ("torch: ...")
    wrong     a result is not torch's
    crash     anything else: an exception that names nothing, a hang, a dead process

the worst of its samples counting. Results of random ops are held against torch's by their distribution, and against
themselves under one seed; of uninitialised memory only the type is compared. Outcomes are appended to a JSON-lines
file: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import itertools
import json
import os
import random
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from generated import assert_generated, no_meanings
from workers import read_record, run_all, unlisted

HERE = Path(__file__).parent
UNSUPPORTED_LIST = HERE / "opinfo_unsupported.txt"
BUILD = HERE.parents[1] / "conformance"
DTYPES = ("float16", "float32", "float64", "int32", "int64", "bool")
SEVERITY = ("pass", "refused", "wrong", "crash")
MINIMUM = 0.75
GROUP = 16
"""Samples in one compilation."""
ENOUGH = 4
"""So many samples refused with one reason, and none compiled, are taken for all of a case."""
DRAWS = 24
"""Runs of a random op that make up its distribution."""
INDEXES = {"sort": 1, "msort": 1, "argsort": 1, "topk": 2, "kthvalue": 2, "median": 1, "nanmedian": 1, "mode": 1}
"""Ops whose indices are torch's to choose among equal elements, and the position of their `dim`."""
UNINITIALISED = frozenset("empty empty_like empty_permuted empty_strided new_empty new_empty_strided resize_ "
                          "resize_as_".split())  # fmt: skip


# --- cases ---
@cache
def database() -> dict[str, Any]:
    """ "name" or "name.variant" -> OpInfo."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_methods_invocations as invocations

    invocations.wrapper_set_seed = lambda op, *args, **kwargs: op(*args, **kwargs)  # seeds are ours, no part of the op
    return {f"{op.name}.{op.variant_test_name}".rstrip("."): op for op in invocations.op_db}


def cases() -> list[str]:
    """ "op/dtype" of every case that torch itself supports on a CPU."""
    import torch

    return [f"{name}/{d}" for name, op in database().items() for d in DTYPES
            if getattr(torch, d) in op.supported_dtypes("cpu")]  # fmt: skip


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


def samples(case: str, count: int | None) -> list[Sample]:
    import torch

    name, dtype = case.rsplit("/", 1)
    seed(0)
    drawn = database()[name].sample_inputs("cpu", getattr(torch, dtype), requires_grad=False)
    return [Sample((s.input, *s.args), dict(s.kwargs)) for s in itertools.islice(drawn, count)]


def seed(number: int) -> None:
    import numpy as np
    import torch

    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)


# --- compiling and running ---
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


def group_function(op: Callable[..., Any], group: list[Sample]) -> Callable[..., Any]:
    """One function that makes every call of a group."""

    def calls(*given: Any) -> Any:
        return [op(*args, **kwargs) for args, kwargs in given]

    return calls


def compiled(function: Callable[..., Any], backend: str = "effcc") -> Callable[..., Any]:
    import torch

    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True)


def fresh(group: list[Sample]) -> list[Any]:
    return [s.fresh() for s in group]


# --- outcomes ---
@dataclass
class Outcome:
    """What became of one sample."""

    kind: str
    reason: str = ""


def judge(op: Callable[..., Any], name: str, group: list[Sample], limit: float) -> Iterator[tuple[Sample, Outcome]]:
    """The outcome of each sample of a group; where the group as a whole does not pass, that of its halves."""
    outcomes = _group_outcomes(op, name, group, limit)
    if len(group) == 1 or all(o.kind == "pass" for o in outcomes):
        yield from zip(group, outcomes, strict=True)
        return
    middle = len(group) // 2
    yield from judge(op, name, group[:middle], limit)
    yield from judge(op, name, group[middle:], limit)


def _group_outcomes(op: Callable[..., Any], name: str, group: list[Sample], limit: float) -> list[Outcome]:
    import torch

    function = group_function(op, group)
    if len(group) == 1:
        try:
            with time_limit(limit):
                function(*fresh(group))
        except TimeLimit:
            return [Outcome("crash", "eager torch: time limit")]
        except Exception as e:
            return [Outcome("refused", f"torch: eager fails: {line(e)}")]
    try:
        with time_limit(limit), torch.no_grad(), watching() as watch:
            run = compiled(function)
            return _compared(function, run, watch, name, group)
    except TimeLimit:
        outcome = Outcome("crash", f"more than {limit:g} s")
    except Exception as e:
        outcome = _failed(function, group, e, limit) if len(group) == 1 else Outcome("crash", line(e))
    return [outcome] * len(group)


def _compared(function: Callable[..., Any], run: Callable[..., Any], watch: Watch, name: str,
              group: list[Sample]) -> list[Outcome]:  # fmt: skip
    from agreement import difference, exact_run
    from torch.utils._pytree import tree_flatten

    def leaves(results: Any) -> list[tuple[list[Any], Any]]:
        return [tree_flatten(r) for r in results]

    def runs(f: Callable[..., Any], number: int) -> list[tuple[list[Any], Any]]:
        seed(number)
        return leaves(f(*fresh(group)))

    got, want, again = runs(run, 0), runs(function, 0), runs(function, 1)

    @cache
    def exact() -> Any:
        result = exact_run(function, fresh(group))
        return None if result is None else leaves(_by_reference(name, group, result))

    @cache
    def bounds() -> Any:
        watch.bounds = True
        try:
            return leaves(run(*fresh(group)))
        finally:
            watch.bounds = False

    for i, sample in enumerate(group if name in INDEXES else ()):
        for results in (got, want, again):
            results[i] = _at_indices(name, sample, *results[i])
    outcomes = []
    for i, (ours, theirs, other) in enumerate(zip(got, want, again, strict=True)):
        if ours[1] != theirs[1]:
            outcomes.append(Outcome("wrong", f"the structure {ours[1]}, not {theirs[1]}"))
        elif name in UNINITIALISED:
            outcomes.append(Outcome("pass", "uninitialised") if _same_types(ours[0], theirs[0])
                            else Outcome("wrong", "another type"))  # fmt: skip
        elif not _same_values(theirs[0], other[0]):
            outcomes.append(_random_outcome(function, run, group) if len(group) == 1 else Outcome("random"))
        else:
            found = (difference(g, w, lambda i=i, k=k: exact() and _of(exact(), i, k),
                                lambda i=i, k=k: _of(bounds(), i, k))
                     for k, (g, w) in enumerate(zip(ours[0], theirs[0], strict=True)))  # fmt: skip
            first = next(((k, f) for k, f in enumerate(found) if f is not None), None)
            outcomes.append(Outcome("pass") if first is None else Outcome("wrong", f"result {first[0]} {first[1]}"))
    return outcomes


def _by_reference(name: str, group: list[Sample], results: list[Any]) -> list[Any]:
    """The results of an f64 run, those of special functions by SciPy, which OpInfo names as their reference: torch's
    own are off by up to 1e-5 there (docs/upstream)."""
    import torch
    from agreement import widened

    reference = getattr(database()[name], "ref", None)
    if not name.startswith("special.") or reference is None:
        return results
    out = []
    for sample, result in zip(group, results, strict=True):
        try:
            arrays = [widened(x.detach().clone()).numpy() for x in sample.args if isinstance(x, torch.Tensor)]
            truth = torch.as_tensor(reference(*arrays, **sample.kwargs))
            out.append(truth if truth.shape == result.shape and truth.dtype == torch.float64 else result)
        except Exception:
            out.append(result)
    return out


def _at_indices(name: str, sample: Sample, results: list[Any], structure: Any) -> tuple[list[Any], Any]:
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


def _of(all_leaves: Any, i: int, k: int) -> Any:
    values = all_leaves[i][0]
    return values[k] if k < len(values) and hasattr(values[k], "shape") else None


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


def _random_outcome(function: Callable[..., Any], run: Callable[..., Any], group: list[Sample]) -> Outcome:
    """Equal under one seed, not under others, and distributed as torch's."""
    import torch
    from agreement import distributions_differ
    from torch.utils._pytree import tree_leaves

    def draw(f: Callable[..., Any], number: int) -> list[Any]:
        seed(number)
        return [torch.as_tensor(x) for x in tree_leaves(f(*fresh(group)))]

    if not _same_values(draw(run, 0), draw(run, 0)):
        return Outcome("wrong", "differs between two runs under one seed")
    ours, theirs = ([draw(f, n) for n in range(DRAWS)] for f in (run, function))
    if not _same_types(ours[0], theirs[0]):
        return Outcome("wrong", "another type")
    for k in range(len(ours[0])):
        a, b = (torch.stack([r[k].flatten() for r in all_]) for all_ in (ours, theirs))
        if bool((a == a[0]).all()) and not bool((b == b[0]).all()):
            return Outcome("wrong", "the same under every seed")
        if (apart := distributions_differ(a, b)) is not None:
            return Outcome("wrong", f"result {k} is {apart}")
    return Outcome("pass", "random")


def _failed(function: Callable[..., Any], group: list[Sample], error: Exception, limit: float) -> Outcome:
    """Refused by name, impossible for any backend, or a crash."""
    from effcc.errors import EffccError

    for e in chain(error):
        if isinstance(e, EffccError):
            return Outcome("refused", re.sub(r"\s+", " ", e.message)[:300])  # without the place: it is in this file
    for backend, who in (("eager", "Dynamo"), ("aot_eager", "AOTAutograd")):
        try:
            with time_limit(limit):
                compiled(function, backend)(*fresh(group))
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


class TimeLimit(BaseException):
    """Not an Exception: what torch raises for those must not hide it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def alarm(*_: Any) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_case(case: str, count: int | None, limit: float, progress: Callable[[int], None] = lambda done: None) -> dict:
    """The outcome of a case, and how many of its samples ended how."""
    start = time.perf_counter()
    name = case.rsplit("/", 1)[0]
    given = samples(case, count)
    ends: Counter[str] = Counter()
    worst, notes, reasons = Outcome("pass"), set(), Counter()
    at, size = 0, 1  # one sample tells whether an op is supported at all
    while at < len(given):
        for _, outcome in judge(database()[name].op, name, given[at : at + size], limit):
            ends[outcome.kind] += 1
            if outcome.kind == "pass" and outcome.reason:
                notes.add(outcome.reason)
            if outcome.kind == "refused":
                reasons[outcome.reason] += 1
            if SEVERITY.index(outcome.kind) > SEVERITY.index(worst.kind):
                worst = outcome
        at, size = at + size, GROUP
        if ends["pass"] == 0 and len(reasons) == 1 and ends["refused"] >= ENOUGH:
            break
        progress(at)
    if not given:
        worst = Outcome("refused", "torch: there are no samples")
    answer = {"case": case, "outcome": worst.kind, "reason": worst.reason, "samples": len(given), "ends": dict(ends)}
    return {**answer, "notes": sorted(notes), "seconds": round(time.perf_counter() - start, 2)}


# --- workers ---
def worker(count: int | None, limit: float) -> None:
    """Run the cases named on stdin, one a line; answer with one JSON line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    prepare()

    def tell(**what: Any) -> None:
        print(json.dumps(what), file=answers, flush=True)

    print("ready", file=answers, flush=True)
    for text in sys.stdin:
        case = text.strip()
        try:
            tell(**run_case(case, count, limit, lambda done: tell(progress=done)))
        except (Exception, TimeLimit) as e:
            tell(case=case, outcome="crash", reason=line(e), samples=0, ends={}, notes=[], seconds=0)


def prepare() -> None:
    """Torch as a case needs it: sizes that depend on data are traced, nothing is printed, one thread."""
    import logging

    import torch

    import effcc.frontends.torch.dynamo  # noqa: F401  (what is missing shows before the first case)

    database()
    torch.set_num_threads(1)
    torch._dynamo.config.capture_scalar_outputs = True
    torch._dynamo.config.capture_dynamic_output_shape_ops = True
    logging.disable(logging.CRITICAL)


# --- report ---
def table(outcomes: dict[str, dict[str, Any]]) -> str:
    rows = [f"{'dtype':10}" + "".join(f"{k:>9}" for k in SEVERITY) + f"{'of':>8}{'samples':>10}"]
    for dtype in (*DTYPES, "all"):
        chosen = [a for n, a in outcomes.items() if dtype in ("all", n.rsplit("/", 1)[1])]
        counts = Counter(a["outcome"] for a in chosen)
        seen = sum(sum(a["ends"].values()) for a in chosen)
        rows.append(f"{dtype:10}" + "".join(f"{counts[k]:9}" for k in SEVERITY) + f"{len(chosen):8}{seen:10}")
    return "\n".join(rows)


def write_list(outcomes: dict[str, dict[str, Any]], path: Path) -> None:
    """Every case that does not pass, with its reason."""
    header = (
        "# Cases of PyTorch's OpInfo that do not pass through torch.compile(backend=\"effcc\"), with the reason.\n"
        "# Written by tests/conformance/opinfo.py --list\n"
    )
    rows = [f"{n}: {a['outcome']}: {a['reason']}" for n, a in sorted(outcomes.items()) if a["outcome"] != "pass"]
    path.write_text(header + "".join(f"{row}\n" for row in rows))


def verdict(outcomes: dict[str, dict[str, Any]], partial: bool) -> int:
    """1 where a case is not right that the list does not name, or where too few are."""
    fresh_ones = unlisted(outcomes, UNSUPPORTED_LIST)
    for n in fresh_ones:
        print(f"not in {UNSUPPORTED_LIST.name}: {n}: {outcomes[n]['outcome']}: {outcomes[n]['reason']}")
    share = sum(a["outcome"] == "pass" for a in outcomes.values()) / max(len(outcomes), 1)
    if not partial and share < MINIMUM:
        print(f"{share:.1%} of the cases pass, at least {MINIMUM:.0%} should")
    return int(bool(fresh_ones) or (not partial and share < MINIMUM))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=60, help="seconds a group of samples")
    parser.add_argument("--only", default="", help="a regular expression on op/dtype")
    parser.add_argument("--samples", type=int, help="the first N samples of a case (default: all)")
    parser.add_argument("--record", type=Path, default=BUILD / "opinfo.jsonl", help="JSON-lines file of outcomes")
    parser.add_argument("--resume", action="store_true", help="go on with the record instead of starting it anew")
    parser.add_argument("--again", default="", help="with --resume: run cases with these outcomes again (a,b)")
    parser.add_argument("--list", action="store_true", help=f"rewrite {UNSUPPORTED_LIST.name}")
    parser.add_argument("--show", action="store_true", help="print every case that does not pass")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.samples, options.timeout)
        return 0
    names = [n for n in cases() if re.search(options.only, n)]
    options.record.parent.mkdir(parents=True, exist_ok=True)
    kept = {n: a for n, a in read_record(options.record).items()
            if options.resume and a["outcome"] not in options.again.split(",")}  # fmt: skip
    options.record.write_text("".join(f"{json.dumps(a)}\n" for a in kept.values()))
    command = [__file__, "--worker", "--timeout", str(options.timeout)]
    command += [] if options.samples is None else ["--samples", str(options.samples)]
    outcomes = run_all(names, command, options.jobs, options.timeout * 2, options.record)
    for answer in outcomes.values():  # a dead or silent process answered by the pool
        if answer["outcome"] == "fail":
            answer.update(outcome="crash", samples=0, ends={"crash": 1}, notes=[])
    print(table(outcomes))
    if options.show:
        for name, answer in sorted(outcomes.items()):
            if answer["outcome"] != "pass":
                print(f"{name}: {answer['outcome']}: {answer['reason']}")
    if options.list:
        write_list(outcomes, UNSUPPORTED_LIST)
    print(f"outcomes: {options.record}")
    return verdict(outcomes, bool(options.only))


if __name__ == "__main__":
    sys.exit(main())
