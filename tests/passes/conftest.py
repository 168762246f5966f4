"""Pass tests are text: before, pipeline, after."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from effcc.ir import Graph
from effcc.pipeline import Context, PassManager, Verify, parse_pipeline
from effcc.testing import Check
from effcc.text import parse, print_graph


@pytest.fixture
def rewrites() -> Callable[..., Context]:
    """rewrites(before, pipeline, after): the pipeline turns one text into the other, and the meaning stays."""

    def compare(before: str, pipeline: str, after: str) -> Context:
        ctx = Context()
        graph = parse(before)
        out: Graph = PassManager([Verify(), Check()]).run(graph, parse_pipeline(pipeline), ctx)
        wanted = parse(after)
        assert print_graph(out, locations=False) == print_graph(wanted, locations=False) or out == wanted, (
            f"{pipeline} gave\n{print_graph(out)}\nwanted\n{print_graph(wanted)}")
        return ctx

    return compare


@pytest.fixture
def keeps(rewrites: Callable[..., Context]) -> Callable[..., Context]:
    """keeps(text, pipeline): the pipeline leaves a graph alone."""
    return lambda text, pipeline: rewrites(text, pipeline, text)
