"""ONNX's backend tests through effcc: every case of the four groups ends as pass, fail or unsupported.

    python tests/conformance/onnx_backend.py --engine cpu --jobs 2

imports each model, compiles it for the target, runs it on the case's data sets and compares by the suite's own function
and tolerances. "Unsupported" (effcc refuses by name) never counts as a pass. With `--engine cpu` a result counts only
where every op ran as generated code, which the program's launch list has to show; `--engine interp` runs the reference
interpreter instead and so tests the frontend alone.

Cases run in worker processes with a time limit each; outcomes are appended to a JSON-lines file, so that an interrupted
run goes on where it stopped. `--list` writes every case that does not pass, with its reason.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import os
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from generated import assert_generated, no_meanings
from workers import run_all, unlisted

GROUPS = ("node", "simple", "pytorch-converted", "pytorch-operator")
MINIMUM = {"node": 1250, "simple": 15, "pytorch-converted": 79, "pytorch-operator": 31}
HERE = Path(__file__).parent
UNSUPPORTED_LIST = HERE / "onnx_unsupported.txt"
BUILD = HERE.parents[1] / "conformance"


# --- cases ---
def cases(groups: tuple[str, ...] = GROUPS) -> dict[str, Any]:
    """ "group/name" -> TestCase, in the suite's order."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {f"{group}/{case.name}": case for group in groups for case in load_model_tests(kind=group)}


def data_sets(case: Any) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """(model, inputs, expected outputs) for each data set of a case."""
    import onnx
    from onnx import numpy_helper

    if case.model_dir is None:
        for inputs, expected in case.data_sets:
            yield case.model, [_plain(x) for x in inputs], [_plain(x) for x in expected]
        return
    model = onnx.load(os.path.join(case.model_dir, "model.onnx"))
    for folder in sorted(glob.glob(os.path.join(case.model_dir, "test_data_set*"))):
        sides = []
        for side, infos in (("input", model.graph.input), ("output", model.graph.output)):
            count = len(glob.glob(os.path.join(folder, f"{side}_*.pb")))
            values = []
            for i in range(count):
                data = Path(folder, f"{side}_{i}.pb").read_bytes()
                if infos[i].type.HasField("sequence_type"):
                    values.append(numpy_helper.to_list(onnx.SequenceProto.FromString(data)))
                elif infos[i].type.HasField("optional_type"):
                    values.append(numpy_helper.to_optional(onnx.OptionalProto.FromString(data)))
                else:
                    values.append(numpy_helper.to_array(onnx.TensorProto.FromString(data)))
            sides.append(values)
        yield model, sides[0], sides[1]


def _plain(x: Any) -> Any:
    import onnx
    from onnx import numpy_helper

    if isinstance(x, onnx.TensorProto):
        return numpy_helper.to_array(x)
    if isinstance(x, list):
        return [_plain(e) for e in x]
    return x


# --- engines ---
def run_interp(model: Any, inputs: list[Any]) -> list[Any]:
    """By the ops' meanings, in torch."""
    from effcc import interp

    source = specialised(model, inputs)
    flat = [np.asarray(x) for port, value in zip(source.inputs, inputs, strict=True) for x in _elements(port, value)]
    results = [to_numpy(t, v.dtype) for t, v in zip(interp.run(source.graph, *flat), source.graph.results, strict=True)]
    return [_gathered(port, results) for port in source.outputs]


def run_cpu(model: Any, inputs: list[Any]) -> list[Any]:
    """By generated code: every launch is of a generated kernel, and no op's meaning in torch is asked for."""
    import effcc

    shapes = {n: x.shape for n, x in _named(model, inputs).items() if isinstance(x, np.ndarray) and 0 in x.shape}
    program = effcc.compile(model, target="cpu", shapes=shapes)
    if isinstance(program, effcc.Program):
        call = program
    else:
        call = program.program(*inputs)  # compiled for these inputs, before meanings are out of bounds
    with no_meanings():
        outputs = list(program(*inputs))
    assert_generated(call)
    return outputs


ENGINES = {"interp": run_interp, "cpu": run_cpu}


def to_numpy(t: Any, dtype: Any) -> np.ndarray:
    """A torch tensor as the NumPy array that ONNX uses for a dtype."""
    import torch

    if t.dtype == torch.bfloat16 or "float8" in str(t.dtype):
        return t.contiguous().view(torch.int16 if t.dtype == torch.bfloat16 else torch.uint8).numpy().view(dtype.numpy)
    return t.detach().numpy().astype(dtype.numpy)


# --- one case ---
def specialised(model: Any, inputs: list[Any]) -> Any:
    """Import a model; where its structure depends on run-time data, specialise on these inputs, as Program does."""
    from effcc.errors import NeedsValue
    from effcc.frontends.onnx import imported

    given = _named(model, inputs)
    shapes: dict[str, Any] = {n: x.shape for n, x in given.items() if isinstance(x, np.ndarray) and 0 in x.shape}
    fixed: dict[str, Any] = {}
    while True:
        try:
            return imported(model, shapes=shapes, fixed=fixed)
        except NeedsValue as needs:
            more = {n for n in needs.inputs if n not in fixed} | {n for n in needs.shapes if n not in shapes}
            if not more:
                raise
            fixed.update({n: given[n] for n in needs.inputs})
            shapes.update({n: given[n].shape for n in needs.shapes})


def _named(model: Any, inputs: list[Any]) -> dict[str, Any]:
    constants = {t.name for t in model.graph.initializer}
    return dict(zip((i.name for i in model.graph.input if i.name not in constants), inputs, strict=False))


def run_case(case: Any, engine: str) -> tuple[str, str]:
    """("pass" | "fail" | "unsupported", reason)"""
    from onnx.backend.test.runner import Runner

    from effcc.errors import UnsupportedError

    try:
        ran = False
        for model, inputs, expected in data_sets(case):
            ran = True
            outputs = ENGINES[engine](model, inputs)
            pairs = [pair for i, both in enumerate(zip(expected, outputs, strict=True)) for pair in _pairs(i, *both)]
            Runner.assert_similar_outputs([w for w, _ in pairs], [h for _, h in pairs], case.rtol, case.atol)
        return ("pass", "") if ran else ("fail", "the case has no data")
    except UnsupportedError as e:
        return "unsupported", _line(e)
    except TimeLimit:
        return "fail", "time limit"
    except Exception as e:
        return "fail", _line(e)


def _pairs(i: int, want: Any, have: Any) -> list[tuple[Any, Any]]:
    """Tensors to compare; sequences element by element, where the suite's function would take elements apart."""
    if isinstance(want, list):
        assert isinstance(have, list) and len(have) == len(want), f"output {i}: not a sequence of {len(want)}"
        return list(zip(want, have, strict=True))
    assert (want is None) == (have is None), f"output {i}: presence differs"
    return [] if want is None else [(want, have)]


def _elements(port: Any, value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if port.kind == "sequence" or isinstance(value, (list, tuple)) else [value]


def _gathered(port: Any, results: list[Any]) -> Any:
    if port.kind == "sequence":
        return [results[i] for i in port.positions]
    return results[port.positions[0]] if port.positions else None


def _line(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}").strip()
    return text[:300]


# --- workers ---
class TimeLimit(Exception):
    pass


def _alarm(*_: Any) -> None:
    raise TimeLimit


def worker(engine: str, limit: float) -> None:
    """Run the cases named on stdin, one a line; answer with one JSON line each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints must not disturb the answers
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    import effcc.frontends.onnx  # noqa: F401  (what is missing shows before the first case)

    table = cases()
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _alarm)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        name = line.strip()
        start = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            outcome, reason = run_case(table[name], engine)
        except TimeLimit:
            outcome, reason = "fail", "time limit"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = round(time.perf_counter() - start, 3)
        print(
            json.dumps({"case": name, "outcome": outcome, "reason": reason, "seconds": seconds}),
            file=answers,
            flush=True,
        )


# --- report ---
def summary(outcomes: dict[str, dict[str, Any]]) -> dict[str, Counter[str]]:
    """Group -> outcome -> count."""
    counts: dict[str, Counter[str]] = {g: Counter() for g in GROUPS}
    for name, answer in outcomes.items():
        counts[name.split("/")[0]][answer["outcome"]] += 1
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    lines = [f"{'group':20} {'pass':>6} {'fail':>6} {'unsupported':>12} {'of':>6}"]
    for group, c in counts.items():
        if c:
            lines.append(f"{group:20} {c['pass']:6} {c['fail']:6} {c['unsupported']:12} {sum(c.values()):6}")
    return "\n".join(lines)


def write_list(outcomes: dict[str, dict[str, Any]], path: Path) -> None:
    """Every case that does not pass, with its reason."""
    header = (
        "# Cases of ONNX's backend tests that do not pass on target cpu, with the reason. Written by\n"
        "# tests/conformance/onnx_backend.py --engine cpu --list\n"
    )
    rows = [f"{n}: {a['outcome']}: {a['reason']}" for n, a in sorted(outcomes.items()) if a["outcome"] != "pass"]
    path.write_text(header + "".join(f"{row}\n" for row in rows))


def verdict(counts: dict[str, Counter[str]], outcomes: dict[str, dict[str, Any]], partial: bool) -> int:
    """1 where a case fails that the list does not name, or a whole group is below its minimum."""
    fresh = unlisted(outcomes, UNSUPPORTED_LIST)
    for n in fresh:
        print(f"not in {UNSUPPORTED_LIST.name}: {n}: {outcomes[n]['outcome']}: {outcomes[n]['reason']}")
    short = [g for g in GROUPS if not partial and counts[g]["pass"] < MINIMUM[g]]
    for group in short:
        print(f"{group}: {counts[group]['pass']} pass, at least {MINIMUM[group]} should")
    return int(bool(fresh or short))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=sorted(ENGINES), default="cpu")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=120, help="seconds a case")
    parser.add_argument("--filter", default="", help="a regular expression on group/name")
    parser.add_argument("--record", type=Path, help="JSON-lines file of outcomes; an existing one is continued")
    parser.add_argument("--json", type=Path, help="where to write the outcomes and counts")
    parser.add_argument("--list", action="store_true", help=f"rewrite {UNSUPPORTED_LIST.name}")
    parser.add_argument("--show", action="store_true", help="print every case that does not pass")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.engine, options.timeout)
        return 0
    names = [n for n in cases() if re.search(options.filter, n)]
    record = options.record or BUILD / f"onnx_backend.{options.engine}.jsonl"
    for folder in (BUILD, record.parent):
        folder.mkdir(parents=True, exist_ok=True)
    command = [__file__, "--worker", "--engine", options.engine, "--timeout", str(options.timeout)]
    outcomes = run_all(names, command, options.jobs, options.timeout, record)
    if options.record is None:
        record.unlink()  # it is complete: the next run starts anew
    counts = summary(outcomes)
    print(table(counts))
    if options.show:
        for name, answer in outcomes.items():
            if answer["outcome"] != "pass":
                print(f"{name}: {answer['outcome']}: {answer['reason']}")
    if options.list:
        write_list(outcomes, UNSUPPORTED_LIST)
    written = options.json or BUILD / f"onnx_backend.{options.engine}.json"
    written.write_text(json.dumps({"engine": options.engine, "counts": counts, "outcomes": outcomes}, indent=1))
    print(f"outcomes: {written}")
    return verdict(counts, outcomes, bool(options.filter))


if __name__ == "__main__":
    sys.exit(main())
