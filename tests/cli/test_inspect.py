import json
import re

import numpy as np


def facts_of(page):
    return json.loads(re.search(r"^const facts = (.*);$", page, re.MULTILINE)[1])


def test_text(effcc, net):
    shown = effcc("inspect", net, "--log").out
    for part in ("passes (", "kernels: ", "memory: ", "lower bound", "launches", "rewrites", "f32[B,4]"):
        assert part in shown


def test_json_at_a_size(effcc, net):
    one, eight = (effcc("inspect", net, "--size", f"B={n}", "--json").json for n in (1, 8))
    assert eight["sizes"] == {"B": 8} and eight["flops"] == 8 * one["flops"] > 0
    assert eight["memory"]["peak"] >= eight["memory"]["lower_bound"] >= one["memory"]["lower_bound"]


def test_an_artifact_knows_one_size(effcc, artifact):
    assert effcc("inspect", artifact, "--size", "B=1").status == 0
    assert "one size only" in effcc("inspect", artifact, "--size", "B=8").refused()


def test_an_artifact_keeps_what_was_known(effcc, net, artifact):
    saved, fresh = (effcc("inspect", path, "--json").json for path in (artifact, net))
    for key in ("name", "inputs", "outputs", "ops", "kernels", "flops", "bytes", "memory", "log", "refusals"):
        assert saved[key] == fresh[key], key
    assert effcc("inspect", artifact, "--graph").out == effcc("inspect", net, "--graph").out


def test_the_page(effcc, net, artifact, tmp_path):
    for model, graphs in ((net, {"compiled", "imported"}), (artifact, {"compiled"})):
        assert effcc("inspect", model, "--html", tmp_path / "page.html").status == 0
        page = (tmp_path / "page.html").read_text()
        assert set(facts_of(page)["graphs"]) == graphs
        assert not re.search(r'(?:src|href)\s*=\s*"(?!#)', page) and "@import" not in page  # nothing is loaded


def test_a_page_that_cannot_be_written(effcc, net, tmp_path):
    assert "cannot write" in effcc("inspect", net, "--html", tmp_path / "no" / "page.html").refused()


def test_times_in_the_table_and_the_page(effcc, net, tmp_path):
    shown = effcc("inspect", net, "--time", "--size", "B=8", "--threads", 1, "--html", tmp_path / "page.html").out
    assert "of peak" in shown and "of bandwidth" in shown
    facts = facts_of((tmp_path / "page.html").read_text())
    assert [x["label"] for x in facts["profile"]["launches"]] == [k["label"] for k in facts["kernels"]]
    assert facts["profile"]["launches"][0]["flops"] == facts["kernels"][0]["flops"] > 0


def test_timed_inputs_tell_the_sizes(effcc, net, tmp_path):
    inputs = [x["name"] for x in effcc("inspect", net, "--json").json["inputs"]]
    np.savez(tmp_path / "x.npz", **{name: np.ones((8, 4), np.float32) for name in inputs})
    given = "--input", tmp_path / "x.npz"
    found = effcc("inspect", net, "--time", *given, "--json").json
    assert found["sizes"] == {"B": 8}
    assert [x["flops"] for x in found["profile"]["launches"]] == [k["flops"] for k in found["kernels"]]
    assert "--time" in effcc("inspect", net, *given).refused()
