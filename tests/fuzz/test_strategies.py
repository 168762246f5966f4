"""The Hypothesis strategy draws verified graphs, and shrinks."""

from hypothesis import HealthCheck, find, given, settings

from effcc.fuzz.strategies import graphs
from effcc.ir import verify

SLOW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@SLOW
@given(graphs(high=4))
def test_graphs_verify(graph):
    verify(graph)


def test_a_graph_shrinks():
    settled = settings(SLOW, max_examples=200)
    graph = find(graphs(high=6), lambda g: any(n.op.family == "elementwise" for n in g.walk()), settings=settled)
    assert sum(n.op.name != "const" for n in graph.nodes) <= 2
