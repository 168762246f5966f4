"""effcc fuzz: a short campaign, its options, and replays."""

from __future__ import annotations

import json


def test_a_campaign_of_some_passes_without_coverage(effcc, tmp_path):
    done = effcc("fuzz", "--minutes", "0.02", "--laws", "text,each-pass", "--passes", "dce,cse", "--no-coverage",
                 "--folder", tmp_path, "--json")
    facts = json.loads(done.out)
    assert done.status == 0 and facts["tests"] > 0 and facts["mutated"] == facts["corpus"] == 0


def test_the_fixed_list_counts_tests_and_keeps_a_corpus(effcc, tmp_path, monkeypatch):
    monkeypatch.setattr("effcc.fuzz.campaign.CI_TESTS", 40)
    monkeypatch.setattr("effcc.fuzz.campaign.WATCHED", 1)
    monkeypatch.setattr("effcc.fuzz.campaign.ALONE", 0)
    facts = effcc("fuzz", "--ci", "--laws", "text,pass-orders", "--folder", tmp_path, "--json").json
    assert facts["tests"] == 40 and facts["branches"] > 100 and facts["corpus"] > 0


def test_what_does_not_exist_is_refused(effcc, tmp_path):
    assert "target" in effcc("fuzz", "--target", "tpu", "--folder", tmp_path).refused()
    assert "no pass 'simplfy'" in effcc("fuzz", "--passes", "simplfy", "--folder", tmp_path).refused()
    assert "no law" in effcc("fuzz", "--laws", "gravity", "--folder", tmp_path).refused()
    assert "no such file" in effcc("fuzz", "--replay", tmp_path / "missing.effir").refused()
