"""PyTorch's OpInfo through `torch.compile(backend="effcc")`: every op, dtype and sample input.

    python tests/conformance/opinfo.py --jobs 2              # all samples
    python tests/conformance/opinfo.py --samples 3 --only "^nn.functional"

A case is an entry of `op_db` with one of Inductor's six dtypes. Its sample inputs are compiled with fullgraph=True,
several in one function (`judge.py`), and compared with eager torch as `agreement.py` says. A case ends as

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
import itertools
import json
import os
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from judge import Op, Outcome, Sample, judge, line, seed
from workers import read_record, run_all, unlisted

from effcc.fuzz.limit import OutOfTime

HERE = Path(__file__).parent
UNSUPPORTED_LIST = HERE / "opinfo_unsupported.txt"
BUILD = HERE.parents[1] / "conformance"
DTYPES = ("float16", "float32", "float64", "int32", "int64", "bool")
SEVERITY = ("pass", "refused", "wrong", "crash")
MINIMUM = 0.75
GROUP = 32
"""Samples in one compilation."""
PATIENCE = 5
"""A worker is taken for hung after so many time limits by the clock: others may want the processor, too."""
REASONS = 5
"""So many reasons of samples that do not pass are recorded, the most frequent ones."""


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


def samples(case: str, count: int | None) -> list[Sample]:
    import torch

    name, dtype = case.rsplit("/", 1)
    seed(0)
    drawn = database()[name].sample_inputs("cpu", getattr(torch, dtype), requires_grad=False)
    return [Sample((s.input, *s.args), dict(s.kwargs)) for s in itertools.islice(drawn, count)]


def operator(name: str) -> Op:
    """What a case calls. SciPy, which OpInfo names as the reference of special functions, stands in for torch's own
    f64, which is off by up to 1e-5 there (docs/upstream)."""
    info = database()[name]
    return Op(name, info.op, info.ref if name.startswith("special.") else None)


def run_case(case: str, count: int | None, limit: float, progress: Callable[[int], None] = lambda done: None) -> dict:
    """The outcome of a case, and how many of its samples ended how."""
    start = time.process_time()
    op = operator(case.rsplit("/", 1)[0])
    given = samples(case, count)
    outcomes: list[Outcome] = []
    size, failed = GROUP, False
    while len(outcomes) < len(given):
        group = judge(op, given[len(outcomes) : len(outcomes) + size], limit)
        outcomes += group
        fails = any(o.kind != "pass" for o in group)
        failed |= fails
        size = 1 if fails else min(2 * size, GROUP) if failed else GROUP  # where some fail, more will
        progress(len(outcomes))
    none = Outcome("refused", "torch: there are no samples")
    worst = max(outcomes, key=lambda o: SEVERITY.index(o.kind), default=none)
    ends = Counter(o.kind for o in outcomes)
    reasons = Counter(o.reason for o in outcomes if o.kind != "pass")
    notes = {o.reason for o in outcomes if o.kind == "pass" and o.reason}
    answer = {"case": case, "outcome": worst.kind, "reason": worst.reason, "samples": len(given), "ends": dict(ends)}
    more = {"reasons": dict(reasons.most_common(REASONS)), "notes": sorted(notes)}
    return {**answer, **more, "seconds": round(time.process_time() - start, 2)}


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
        except (Exception, OutOfTime) as e:
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
    torch._dynamo.guards.profile_guard_manager = lambda *_: 0.0  # a time for the log that takes as long as our compiler


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
    parser.add_argument("--timeout", type=float, default=60, help="seconds of the processor for a group of samples")
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
    outcomes = run_all(names, command, options.jobs, options.timeout * PATIENCE, options.record)
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
