"""effcc compile --budget."""

import numpy as np
import pytest


@pytest.fixture
def calibration(digits, tmp_path):
    held = np.load(digits.parent / "digits_test.npz")
    path = tmp_path / "data.npz"
    np.savez(path, image=held["images"][:64], labels=held["labels"][:64])
    return path


def test_a_search_is_reported(effcc, digits, calibration, tmp_path):
    out = tmp_path / "small.onnx"
    words = ["compile", digits, "--target", "onnx", "-o", out, "--calibration", calibration]
    told = effcc(*words, "--reduce-tokens", "tome:r=?", "--budget", "top1>=ref-0.1", "--json")
    assert told.status == 0, told.err
    found = told.json["search"]
    assert found["chosen"] >= 1 and found["quality"] >= found["unmodified"] - 0.1 and out.exists()
    kept = [t["value"] for t in found["trials"] if t["kept"]]
    assert found["chosen"] == max(kept) and found["option"] == "tome:r"
    told = effcc(*words, "--reduce-tokens", "tome:r=?", "--budget", "agree>=0.5", "--search-minutes", "0")
    assert "0 minutes were over" in told.out and "chosen: the unmodified model" in told.out


def test_passes_say_what_can_be_searched(effcc):
    assert "searchable within a budget: r=?, from 0" in effcc("passes", "tome").out
    found = effcc("passes", "block-sparse", "--json").json
    assert found[0]["searchable"]["density"] == {"gentlest": 1.0, "strongest": 0.0, "step": 0.05}


def test_what_is_lacking(effcc, digits, calibration):
    words = ["compile", digits, "--target", "onnx"]
    assert "within a budget, and there is none" in effcc(*words, "--reduce-tokens", "tome:r=?").refused()
    assert "which option" in effcc(*words, "--budget", "agree>=1", "--calibration", calibration).refused()
    asked = effcc(*words, "--reduce-tokens", "tome:inflect=?", "--budget", "agree>=1", "--calibration", calibration)
    assert "tome does not offer 'inflect'" in asked.refused()
