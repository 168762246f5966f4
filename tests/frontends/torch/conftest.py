"""Tracing a function through AOTAutograd into our graph, and running that graph by the ops' reference meanings."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")


def trace(function: Any, *tensors: Any) -> Any:
    """The Imported graph of function(*tensors) -> tensor or list of tensors."""
    from torch._functorch.aot_autograd import aot_module_simplified
    from torch._subclasses.fake_tensor import unset_fake_temporarily

    from effcc.frontends.torch.decompositions import decompositions
    from effcc.frontends.torch.dynamo import boxed
    from effcc.frontends.torch.fx import import_fx

    class Module(torch.nn.Module):
        def forward(self, *args: Any) -> Any:
            out = function(*args)
            return tuple(out) if isinstance(out, (tuple, list)) else (out,)

    found: list[Any] = []

    def compiler(graph: Any, _: Any) -> Any:
        with unset_fake_temporarily():
            found.append(import_fx(graph))
        return boxed(lambda args: graph(*args))

    with torch.no_grad():
        aot_module_simplified(
            Module(),
            tensors,
            fw_compiler=compiler,
            decompositions=decompositions(),
            keep_inference_input_mutations=True,
        )
    return found[0]


def evaluate(imported: Any, *tensors: Any) -> list[Any]:
    """Run by the reference interpreter; returns torch's outputs."""
    from effcc.interp import run

    results = run(imported.graph, *imported.signature.arguments(tensors))
    for result, position in imported.graph.aliases:
        plan = imported.signature.inputs[position]
        plan.fetch(tensors).copy_(results[result])
    return imported.signature.collect(tensors, results)


@pytest.fixture(name="trace")
def trace_fixture() -> Any:
    return trace


@pytest.fixture
def agrees() -> Any:
    """Check that the graph of a function, interpreted, equals the function; returns the graph."""

    def check(function: Any, *tensors: Any, rtol: float | None = None, atol: float | None = None) -> Any:
        imported = trace(function, *[t.clone() for t in tensors])
        ours = [t.clone() for t in tensors]
        theirs = [t.clone() for t in tensors]
        wanted = function(*theirs)
        wanted = list(wanted) if isinstance(wanted, (tuple, list)) else [wanted]
        got = evaluate(imported, *ours)
        assert len(got) == len(wanted)
        for a, b in zip([*got, *ours], [*wanted, *theirs], strict=True):
            torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True, check_stride=False)
        return imported.graph

    return check
