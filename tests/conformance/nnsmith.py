"""Models from NNSmith's own generator (Liu et al., ASPLOS 2023) through effcc, compared with torch eager.

    python tests/conformance/nnsmith.py --models 600 --nodes 10

NNSmith is no dependency: `pip install nnsmith` into an environment that has effcc. Its generator draws graphs of
operators by an SMT solver and makes them torch modules with inputs; `Factory` is a back end of NNSmith that compiles
them by effcc, and NNSmith's own comparison (relative 1e-2, absolute 1e-3) judges. Each model ends as

    pass          every output agrees
    mismatch      an output differs
    unsupported   effcc refuses by name
    crash         anything else is raised
    invalid       torch eager has NaN or infinities, or cannot run the model

Two figures tell how the graphs spread: the share of the pairs (operator, operator that reads its result) of the 71 of
effcc.fuzz.vocabulary that the graphs have, and graphs a second.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np


def generator() -> Any:
    """NNSmith's modules, made to work with the present torch."""
    if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
        del sys.path[0]  # this file is called as the package is
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import nnsmith.graph_gen
        import nnsmith.materialize.torch as materialize
    return nnsmith.graph_gen, materialize


def factory() -> Any:
    """effcc as a back end of NNSmith."""
    from multipledispatch import dispatch
    from nnsmith.backends.factory import BackendFactory
    from nnsmith.materialize.torch import TorchModel

    class Factory(BackendFactory):
        @property
        def system_name(self) -> str:
            return "effcc"

        @dispatch(TorchModel)
        def make_backend(self, model: TorchModel) -> Any:
            import torch

            import effcc

            net = model.torch_model.eval()
            net.debug_numeric = lambda tensors: None  # it asks for values, which torch.export cannot trace
            names = list(net.input_like)
            example = net.get_random_inps()
            with torch.no_grad():
                program = effcc.compile(net, inputs=tuple(example[name] for name in names))

            def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
                results = program(*(inputs[name] for name in names))
                return dict(zip(net.output_like, map(np.asarray, results), strict=True))

            return run

    return Factory(target="cpu", optmax=True)


def operators() -> list[Any]:
    """The 71 that NNSmith draws by default, each for the dtypes that torch on the CPU and the back end take."""
    from nnsmith.materialize.torch import TorchModelCPU

    from effcc.fuzz.vocabulary import NNSMITH

    found = [op for op in dict.fromkeys(TorchModelCPU.operators()) if not op.limit_domain]
    assert {op.__name__ for op in found} == set(NNSMITH), "NNSmith's operators are others than the vocabulary's"
    return found


def narrowed(ops: list[Any], cache: Path) -> list[Any]:
    """The operators with the dtypes that torch eager runs, tried one by one by NNSmith and kept in a file.

    Complex numbers are left out, which NNSmith leaves out for ONNX as well. What its trial cannot solve (its shapes for
    Reshape need not be positive, and present solvers do not choose them so) keeps the dtypes that it declares.
    """
    from nnsmith.abstract.dtype import DTYPE_GEN_COMPLEX
    from nnsmith.error import InternalError
    from nnsmith.materialize.torch import TorchModelCPU
    from nnsmith.narrow_spec import OpConfig, dump_topset, infer_topset_from_scratch, load_topset

    if not cache.exists():
        known = {}
        for op in ops:
            known[op.name()] = OpConfig(op.in_dtypes, op.out_dtypes)
            for _ in range(5):
                try:
                    known.update(infer_topset_from_scratch(TorchModelCPU, None, op_types=[op]))
                    break
                except (InternalError, AssertionError, RuntimeError, NotImplementedError):
                    continue
        cache.parent.mkdir(parents=True, exist_ok=True)
        dump_topset(known, cache)
    complex_ = set(DTYPE_GEN_COMPLEX)
    for op in ops:
        found = load_topset(cache)[op.name()]
        op.in_dtypes = [combination for combination in found.in_dtypes if complex_.isdisjoint(combination)]
        op.out_dtypes = [combination for combination in found.out_dtypes if complex_.isdisjoint(combination)]
    return ops


def pairs(graph: Any) -> set[tuple[str, str]]:
    """(operator, one that reads its result) in a graph of NNSmith's."""
    from nnsmith.abstract.op import Constant, Input

    makers = {name: inst.iexpr.op for inst in graph.insts for name in inst.retvals()}
    found = set()
    for inst in graph.insts:
        for name in inst.iexpr.args:
            if not isinstance(makers[name], (Input, Constant)):
                found.add((type(makers[name]).__name__, type(inst.iexpr.op).__name__))
    return found


def test(graph: Any, back_end: Any, seed: int, kept: Path) -> tuple[str, str]:
    """(outcome, reason) of one graph; a model that crashes or differs is kept, as graphs of a seed depend on the SMT
    solver's earlier ones."""
    import torch
    from nnsmith.materialize import TestCase
    from nnsmith.materialize.torch import TorchModelCPU

    torch.manual_seed(seed)
    try:
        model = TorchModelCPU.from_gir(graph)
        oracle = model.make_oracle()
    except (RuntimeError, NotImplementedError, TypeError, IndexError, ValueError) as error:
        return "invalid", _line(error)
    case = TestCase(model, oracle)
    outcome, reason = judge(case, back_end)
    if outcome in ("crash", "mismatch"):
        (kept / str(seed)).mkdir(parents=True, exist_ok=True)
        case.dump(str(kept / str(seed)))
    return outcome, reason


def judge(case: Any, back_end: Any) -> tuple[str, str]:
    from effcc.errors import UnsupportedError

    if any(not np.isfinite(x).all() for x in case.oracle.output.values()):
        return "invalid", "torch eager gives NaN or infinities"
    try:
        output = back_end.make_backend(case.model)(case.oracle.input)
    except UnsupportedError as error:
        return "unsupported", _line(error)
    except Exception as error:
        return "crash", _line(error)
    report = back_end.verify_results(output, case)
    return ("pass", "") if report is None else ("mismatch", " ".join(report.log.split())[-300:])


def drawn(graph_gen: Any, ops: list[Any], nodes: int, seed: int) -> Any:
    """A graph of NNSmith's."""
    return graph_gen.model_gen(ops, "symbolic-cinit", max_nodes=nodes, seed=seed, timeout_ms=10_000).make_concrete()


def hunt(ops: list[Any], back_end: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What `effcc.fuzz.planted.hunt` tells, of NNSmith's models. The time begins with the first model."""
    graph_gen, _ = generator()
    start, k = time.monotonic(), 0
    while time.monotonic() - start < options.until_found:
        seed, k = 1_000_003 * options.seed + k, k + 1
        outcome, reason = test(drawn(graph_gen, ops, options.nodes, seed), back_end, seed, options.folder)
        if outcome in ("crash", "mismatch") and str(seed) not in options.known:
            return {"law": outcome, "message": reason[:200], "graph": str(options.folder / str(seed)), "tests": k,
                    "signature": str(seed), "seconds": time.monotonic() - start}  # fmt: skip
    return {"law": None, "tests": k, "seconds": time.monotonic() - start}


def replay(folder: Path) -> int:
    """A kept model again, with the graph and the traceback."""
    from nnsmith.materialize import TestCase
    from nnsmith.materialize.torch import TorchModelCPU

    case = TestCase.load(TorchModelCPU, str(folder))
    print(case.model.torch_model.ir.pretty())
    factory().make_backend(case.model)(case.oracle.input)
    outcome, reason = judge(case, factory())
    print(outcome, reason)
    return int(outcome != "pass")


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=600)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generate-only", action="store_true", help="measure the generator alone")
    parser.add_argument("--replay", type=Path, help="run a kept model again")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2] / "conformance")
    parser.add_argument("--dtypes", type=Path, help="file of the dtypes that torch takes (default: in the folder)")
    parser.add_argument("--known", action="append", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--until-found", type=float, metavar="SECONDS", help="end with the first model that is not "
                        "right, or after so long, and tell which as JSON (effcc.fuzz.planted)")
    options = parser.parse_args()
    graph_gen, materialize = generator()
    if options.replay is not None:
        return replay(options.replay)
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    materialize.TorchModelCPU.add_seed_setter()
    ops = narrowed(operators(), options.dtypes or options.folder / "nnsmith.dtypes.yaml")
    back_end = factory()
    if options.until_found is not None:
        print(json.dumps(hunt(ops, back_end, options)))
        return 0
    outcomes: Counter[str] = Counter()
    reached: set[tuple[str, str]] = set()
    seconds = 0.0
    record = options.folder / f"nnsmith.{options.seed}.jsonl"
    with record.open("w") as out:
        for k in range(options.models):
            seed = 1_000_003 * options.seed + k
            start = time.perf_counter()
            graph = drawn(graph_gen, ops, options.nodes, seed)
            seconds += time.perf_counter() - start
            reached |= pairs(graph)
            if options.generate_only:
                continue
            outcome, reason = test(graph, back_end, seed, options.folder / "nnsmith.kept")
            outcomes[outcome] += 1
            out.write(json.dumps({"seed": seed, "outcome": outcome, "reason": reason}) + "\n")
            out.flush()
            if (k + 1) % 50 == 0:
                print(f"{k + 1}/{options.models}: {dict(outcomes)}", file=sys.stderr, flush=True)
    possible = len(ops) ** 2
    print(f"{options.models} graphs of {options.nodes} nodes, {options.models / seconds:.1f} a second")
    print(f"pairs of operators: {len(reached)} of {possible}, {len(reached) / possible:.1%}")
    for outcome, count in outcomes.most_common():
        print(f"{outcome:12} {count}")
    print(f"outcomes: {record}")
    return int(bool(outcomes["mismatch"] or outcomes["crash"]))


if __name__ == "__main__":
    random.seed(0)
    sys.exit(main())
