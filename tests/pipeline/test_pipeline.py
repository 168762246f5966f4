"""Pipelines as text, the table of passes, the manager and its instruments, bisection."""

import io

import pytest

from effcc.errors import EffccError, ParseError, UnsupportedError, VerifyError
from effcc.ir import Builder, Graph, Tensor, f32
from effcc.pipeline import (
    Context,
    Pass,
    PassManager,
    PrintAfter,
    Time,
    Verify,
    bisect,
    find_pass,
    parse_pass,
    parse_pipeline,
    pass_table,
    passes_of,
    print_pipeline,
)
from effcc.pipeline import passes as table
from effcc.rewrite import Rule, rewrite


class Options(Pass):
    name = "options"
    category = "prune"
    count: int = 3
    rate: float = 0.5
    sizes: tuple[int, ...] = (1,)
    deep_mode: bool = False
    label: str | None = None
    limit: int | None = 7


class Needs(Pass):
    name = "needs"
    ratio: float


class Swap(Pass):
    """Every neg becomes abs, one logged rewrite each."""

    name = "swap"

    def run(self, graph, ctx):
        class NegToAbs(Rule):
            def pattern(self, p, x):
                return p.neg(x)

            def rewrite(self, b, m):
                return b.abs(m.x)

        return rewrite(graph, [NegToAbs()], ctx)


class Breaks(Pass):
    name = "breaks"

    def run(self, graph, ctx):
        return Graph(graph.name, graph.inputs, graph.nodes[1:], graph.results)


@pytest.fixture(autouse=True)
def local_passes(monkeypatch):
    known = dict(pass_table())
    known |= {c.name: f"{__name__}:{c.__name__}" for c in (Options, Needs, Swap, Breaks)}
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__("types").ModuleType(__name__))
    for c in (Options, Needs, Swap, Breaks):
        monkeypatch.setattr(sys.modules[__name__], c.__name__, c, raising=False)
    monkeypatch.setattr(table, "pass_table", lambda: known)


def negs(count):
    b = Builder()
    y = b.input("x", Tensor(f32, (3,)))
    for _ in range(count):
        y = b.neg(y)
    return b.graph(y)


@pytest.mark.parametrize("text", [
    "options", "options:count=5", "options:sizes=8+8+4:deep-mode=true", "options:limit=none",
    "options:rate=0.25:label=a", "needs:ratio=0.5,options,fold:max-growth=12,dce", "options:count=-1",
])
def test_text_round_trips(text):
    assert print_pipeline(parse_pipeline(text)) == text


def test_values_have_the_types_of_the_fields():
    p = parse_pass("options:sizes=8+8+4:deep_mode:rate=1:limit=none")
    assert p == Options(sizes=(8, 8, 4), deep_mode=True, rate=1.0, limit=None) and isinstance(p.rate, float)
    assert str(p) == "options:rate=1.0:sizes=8+8+4:deep-mode=true:limit=none"
    assert parse_pipeline("") == () and parse_pass("options:sizes=").sizes == ()


@pytest.mark.parametrize("text, message", [
    ("optoins", "there is no pass 'optoins'; did you mean 'options'"),
    ("options:cuont=3", "options has no option 'cuont'; did you mean 'count'"),
    ("dce:x=1", "dce has no option 'x'; dce takes no options"),
    ("options:count=three", "options:count: 'three' is not an integer"),
    ("options:rate=x", "is not a number"),
    ("options:deep-mode=maybe", "neither true nor false"),
    ("options:count=1:count=2", "given twice"),
    ("options:sizes=1+b", "'b' is not an integer"),
    ("needs", "needs needs ratio; write needs:ratio="),
    ("dce,,fold", "a pass without a name"),
])
def test_errors_name_the_option_and_what_there_is(text, message):
    with pytest.raises((ParseError, UnsupportedError), match=message) as caught:
        parse_pipeline(text)
    assert "\n" not in str(caught.value)


def test_every_pass_of_the_table_loads_and_is_named_so():
    from effcc.pipeline.passes import pass_table as real

    assert {"fold", "dce", "cse", "simplify", "raise"} <= set(real())
    for name in real():
        cls = find_pass(name)
        assert cls.name == name and cls.category in table.CATEGORIES and cls.__doc__


def test_passes_by_category():
    found = passes_of("prune")
    assert {"options", "finercut"} <= set(found) and all(cls.category == "prune" for cls in found.values())
    assert "fold" not in found


def test_a_broken_entry_says_so(monkeypatch):
    monkeypatch.setattr(table, "pass_table", lambda: {"gone": "no_such_module:X", "int": "builtins:int"})
    with pytest.raises(EffccError, match="'gone' cannot be loaded from no_such_module:X"):
        find_pass("gone")
    with pytest.raises(EffccError, match="builtins:int is not a Pass"):
        find_pass("int")


def test_the_manager_runs_in_order_and_logs():
    ctx, times = Context(), Time()
    out = PassManager([times, Verify()]).run(negs(3), [Swap(), parse_pass("simplify")], ctx)
    assert [n.op.name for n in out.nodes] == ["abs"]
    assert [e.text for e in times.entries] == ["swap", "simplify"] and times.entries[1].ops_after == 1
    assert ctx.count("swap") == {"neg-to-abs": 3} and ctx.count("simplify") == {"abs-twice": 2}
    assert [r.number for r in ctx.log] == [1, 2, 3, 4, 5]


def test_verify_names_the_pass():
    with pytest.raises(VerifyError, match="pass breaks broke the graph"):
        PassManager([Verify()]).run(negs(3), [Breaks()])


def test_errors_carry_the_pass_as_a_note():
    class Fails(Pass):
        name = "fails"
        strength: int = 1

        def run(self, graph, ctx):
            raise EffccError("no")

    with pytest.raises(EffccError) as caught:
        PassManager().run(negs(1), [Fails(strength=2)])
    assert caught.value.__notes__ == ["in pass fails:strength=2"]


def test_print_after_changed_passes_only():
    file = io.StringIO()
    PassManager([PrintAfter(file=file)]).run(negs(2), [parse_pass("dce"), Swap()])
    text = file.getvalue()
    assert text.startswith("# after swap: 2 -> 2 ops; 2 neg-to-abs\ngraph @main") and "after dce" not in text
    only = io.StringIO()
    PassManager([PrintAfter(frozenset({"fold"}), only)]).run(negs(2), [Swap()])
    assert only.getvalue() == ""


@pytest.mark.parametrize("wanted", [1, 4, 7])
def test_bisection_finds_the_rewrite(wanted):
    def is_bad(graph):
        return sum(n.op.name == "abs" for n in graph.nodes) >= wanted

    culprit = bisect(negs(7), [parse_pass("dce"), parse_pass("fold"), Swap(), parse_pass("cse")], is_bad)
    assert (culprit.pass_name, culprit.rule, culprit.number) == ("swap", "neg-to-abs", wanted)
    assert is_bad(culprit.after) and not is_bad(culprit.before)


def test_bisection_of_a_pass_that_logs_nothing_and_of_a_good_pipeline():
    culprit = bisect(negs(2), [Breaks()], lambda g: len(g.nodes) < 2)
    assert (culprit.pass_name, culprit.rule) == ("breaks", None)
    assert bisect(negs(2), [Swap()], lambda g: False) is None


def test_passes_are_frozen_values():
    assert Options(count=2) == Options(count=2) and hash(Options()) == hash(Options())
    with pytest.raises(AttributeError):
        Options().count = 5
