"""Target cuda from the command line, on a machine that may have no GPU."""

from __future__ import annotations

import numpy as np
import pytest

from effcc.backends.triton.target import missing_device

pytest.importorskip("triton")


def test_compile_inspect_and_run(effcc, net, tmp_path):
    out = tmp_path / "net.effcc"
    done = effcc("compile", net, "--target", "cuda{arch=sm_80}", "--quantize", "half", "-o", out)
    assert done.status == 0 and "1 use tensor cores" in done.out
    shown = effcc("inspect", out)
    assert shown.status == 0 and "kernels on sm_80" in shown.out and "HMMA" in shown.out
    (facts,) = {k["symbol"]: k["on"]["sm_80"] for k in effcc("inspect", out, "--json").json["kernels"]
                if k["template"] == "contraction"}.values()
    assert facts["registers"] > 0 and facts["spills"] == 0
    if missing_device() is not None:
        np.savez(tmp_path / "in.npz", x=np.zeros((2, 4), np.float32))
        assert "for a GPU, and there is none here" in effcc("run", out, "-i", tmp_path / "in.npz").refused()


def test_verify_runs_kernels_in_the_interpreter(effcc, net):
    assert effcc("verify", net, "--target", "cuda{run=interpreter}").status == 0


def test_doctor_tells_what_there_is(effcc):
    assert "cuda: Triton" in effcc("doctor").out
