"""Mutators: each changes graphs, keeps them well-typed, and applies to something of the corpus."""

import random
from collections import Counter

import pytest

from effcc.errors import EffccError
from effcc.fuzz.case import Case
from effcc.fuzz.generate import GraphDrawer
from effcc.fuzz.mutate import MUTATORS, GraphMutator, inside, splice, told_apart
from effcc.fuzz.rebuild import require_told, resize, retype
from effcc.fuzz.seeds import written
from effcc.ir import verify
from effcc.testing.draw import NothingDrawn
from effcc.testing.search import Choices
from effcc.text import parse

LOOP = """graph @f(%x: f32[2,3], %c: f32[3]) -> f32[2,2,3] {
  %n: i64[] = const 2
  %go: bool[] = const true
  %0: f32[2,2,3] = loop(%n, %go, %x, %c) {body=graph @body(%i: i64[], %going: bool[], %y: f32[2,3], %d: f32[3])
      -> (bool[], f32[2,3]) {
    %1: f32[2,3] = add(%y, %d)
    return %going, %1
  }, num_carried=0, length=2}
  return %0
}"""


def corpus():
    drawn = [GraphDrawer(Choices(rest=random.Random(k))).graph(2, 6) for k in range(20)]
    return [*written(), *drawn, parse(LOOP)]


def mutator(seed, graphs=()):
    return GraphMutator(Choices(rest=random.Random(seed)), others=graphs)


@pytest.mark.parametrize("change", dict.fromkeys(MUTATORS), ids=lambda f: f.__name__)
def test_each_mutator_changes_graphs_and_keeps_them_typed(change):
    graphs, applied = corpus(), 0
    for k, graph in enumerate(graphs):
        try:
            changed = mutator(k, graphs).mutated(change, graph)
        except (EffccError, NothingDrawn):
            continue
        verify(changed)
        assert changed != graph
        applied += 1
    assert applied, "it applies to nothing"


def test_mutations_stack_and_are_run():
    """What was mutated again and again has a meaning: the interpreter agrees with its types."""
    graphs = corpus()
    grown = Counter()
    for k in range(60):
        graph = graphs[k % len(graphs)]
        try:
            changed = mutator(f"stack {k}", graphs).mutate(graph, 3)
        except NothingDrawn:
            continue
        Case.of(changed, k)
        grown[len(changed.nodes) > len(graph.nodes)] += 1
    assert grown[True] > 10 and grown[False] > 10


def test_the_same_choices_mutate_alike():
    graphs = corpus()
    assert mutator(7, graphs).mutate(graphs[0], 2) == mutator(7, graphs).mutate(graphs[0], 2)


def test_a_size_changes_wherever_it_stands():
    graph = parse("""graph @f(%x: f32[3,2]) -> f32[2,3] {
      %c: f32[3,1] = const [[1.0], [2.0], [3.0]]
      %0: f32[3,2] = add(%x, %c)
      %1: f32[2,3] = transpose(%0) {perm=(1, 0)}
      %2: f32[2,3] = broadcast_to(%1) {shape=(2, 3)}
      return %2
    }""")
    seen = set()
    for k in range(300):
        try:
            changed = mutator(k).mutated(resize, graph)
        except (EffccError, NothingDrawn):
            continue
        seen.update(str(size) for size in changed.inputs[0].shape)
    assert {"0", "1", "17", "N"} <= seen  # in the input, the constant and the attribute


def test_a_dtype_changes_everywhere():
    graph = parse("""graph @f(%x: f32[2]) -> f32[2] {
      %c: f32[2] = const [1.0, 2.0]
      %0: f32[2] = mul(%x, %c)
      return %0
    }""")
    changed = next(mutator(k).mutated(retype, graph) for k in range(20) if applies(k, retype, graph))
    assert {v.dtype for v in changed.values} == {changed.inputs[0].dtype} and changed.inputs[0].dtype.name != "f32"


def applies(seed, change, graph):
    try:
        mutator(seed).mutated(change, graph)
    except (EffccError, NothingDrawn):
        return False
    return True


def test_bodies_are_mutated_and_loops_stay_counted():
    graph, bodies = parse(LOOP), set()
    for k in range(200):
        try:
            changed = mutator(k).mutated(inside, graph)
        except (EffccError, NothingDrawn):
            continue
        (loop,) = [n for n in changed.nodes if n.op.name == "loop"]
        bodies.add(str(loop.op.body))
        Case.of(changed, k)  # (an iteration more or less would contradict the type)
    assert len(bodies) > 5


def test_splicing_connects_two_graphs():
    first = parse("graph @f(%x: f32[2]) -> f32[2] { %0: f32[2] = neg(%x)  return %0 }")
    second = parse("graph @g(%x: f32[2]) -> f32[2] { %0: f32[2] = exp(%x)  return %0 }")
    joined = mutator(0, [second]).mutated(splice, first)
    assert {n.op.name for n in joined.nodes} == {"neg", "exp"} and len(joined.inputs) == 1


def test_sizes_of_one_name_are_told_apart():
    first = parse("graph @f<N in 1..64>(%x: f32[N,0]) -> f32[N,0] { %0: f32[N,0] = neg(%x)  return %0 }")
    second = parse("""graph @g<N in 2..64, K>(%x: f32[N,2,K]) -> f32[K,N+N,1] {
      %0: f32[K,N,2] = transpose(%x) {perm=(2, 0, 1)}
      %1: f32[K,N+N,1] = reshape(%0) {shape=(K, N+N, 1)}
      return %1
    }""")
    apart = told_apart(second, first)
    verify(apart)
    assert {str(s) for s in apart.symbols} == {"M", "K"} and told_apart(second, second) is second
    assert apart.results[0].type.shape == (*apart.symbols[:1], apart.symbols[1] * 2, 1)


def test_a_size_that_nobody_tells_inside_of_a_branch_is_refused():
    text = """graph @f(%c: bool[], %x: f32[2]) -> i64[] {{
      %0: i64[] = if(%c, %x) {{then=graph @then(%x: f32[2]) -> i64[] {{
        %0: i64[1,n] = nonzero(%x) {{size=n}}
        %1: i64[] = dim() {{value={}}}
        return %1
      }}, orelse=graph @orelse(%x: f32[2]) -> i64[] {{
        %0: i64[] = const 0
        return %0
      }}}}
      return %0
    }}"""
    require_told(parse(text.format("n").replace("@f(", "@f<n>(")))
    with pytest.raises(NothingDrawn, match="nobody tells a size"):
        require_told(parse(text.format("m").replace("@f(", "@f<n, m>(")))
