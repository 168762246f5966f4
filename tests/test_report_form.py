"""Reports of real programs have the form; whatever is changed in one does not, and is named."""

import copy
import json

import pytest

import effcc
from effcc import artifact
from effcc.errors import EffccError
from effcc.report import facts
from effcc.report_form import FORM, misfit
from effcc.text import parse

TEXT = """graph @f<N in 1..8>(%x: f32[N,4]) -> f32[N,4] {
  %0: f32[N,4] = softmax(%x) {axis=1}
  return %0
}"""


@pytest.fixture(scope="module")
def program():
    return effcc.compile(parse(TEXT))


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value, path, new):
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


def test_a_real_report_has_the_form_and_no_place_takes_anything(program):
    report = json.loads(json.dumps(facts(program)))
    assert misfit(report, FORM) is None
    free = {"fixed", "schedule"}  # contents are any numbers; there may be no schedule
    for path in places(report):
        if path and path[0] not in free:
            wrong = {} if not isinstance(report, dict) or path[-1] != "rules" else []
            if path[-1] in ("sizes", "seconds", "templates", "rules", "memory", "ops"):
                wrong = []
            assert misfit(changed(report, path, wrong), FORM) is not None, path


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: r.pop("flops"), "flops"),
        (lambda r: r.update(sizes={"N": "8"}), "sizes.N"),
        (lambda r: r["kernels"][0].pop("template"), "kernels.0.template"),
        (lambda r: r["passes"][0].update(before=True), "passes.0.before"),
        (lambda r: r.update(fixed={"x": [[1, 2], [3]]}), "fixed.x"),
        (lambda r: r.update(search={"budget": "x"}), "search"),
    ],
)
def test_the_part_that_is_wrong_is_named(program, change, name):
    report = json.loads(json.dumps(facts(program)))
    change(report)
    assert misfit(report, FORM) == name


def test_an_artifact_with_another_report_is_refused(program, tmp_path, monkeypatch):
    monkeypatch.setattr("effcc.report.facts", lambda p: {**facts(p), "flops": "many"})
    artifact.save(program, tmp_path / "a.effcc")
    with pytest.raises(EffccError, match="report.json has no valid flops"):
        artifact.load(tmp_path / "a.effcc")
