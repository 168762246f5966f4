import pytest

from effcc.backends.tvm.tiles.text import text


@pytest.mark.parametrize("family", ["norms"], indirect=True)
def test_text(family):
    shown = text(family.tiled.graph)
    graph = family.tiled.graph
    lines = shown.splitlines()
    assert lines[0].startswith(f"tiles: {len(graph.steps)} launches, {graph.tasks - graph.joins} tasks, ")
    assert lines[1].startswith("0 rows ") and lines[2] == "  0 [0:1)"
    assert sum(line.startswith("join ") for line in lines) == graph.joins
    assert sum(line.startswith("  ") for line in lines) == graph.tasks - graph.joins
    assert text(graph) == shown
