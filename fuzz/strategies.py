"""Hypothesis strategies: graphs for anyone's property tests.

    from hypothesis import given
    from effcc.fuzz.strategies import graphs

    @given(graphs(high=5))
    def test_my_pass(graph): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from effcc.fuzz.generate import GraphDrawer
from effcc.ir import Graph


@st.composite
def graphs(draw: Any, low: int = 1, high: int = 8) -> Graph:
    """Verified graphs of `low` to `high` ops; Hypothesis shrinks towards few ops and small, plain types."""

    def choose(options: Sequence[Any]) -> Any:
        return options[draw(st.integers(0, len(options) - 1))]

    return GraphDrawer(choose).graph(low, high)
