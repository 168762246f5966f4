import numpy as np
import pytest

import effcc
from effcc.ir import Builder, Symbol, Tensor, f32
from effcc.roofline import profile


@pytest.fixture(scope="module")
def program():
    b = Builder("net")
    x = b.input("x", Tensor(f32, (Symbol("N", 1, 64), 32)))
    w = b.input("w", Tensor(f32, (32, 16)))
    return effcc.compile(b.graph(b.softmax(b.matmul(x, w), axis=1)))


def arrays(n):
    return {"x": np.ones((n, 32), np.float32), "w": np.ones((32, 16), np.float32)}


def test_work_is_that_of_the_inputs_sizes(program):
    one, eight = (profile(program, arrays(n), threads=1, rounds=2).launches for n in (1, 8))
    assert [x.label for x in one] == [x.label for x in eight]
    assert one[0].flops == 2 * 32 * 16 and eight[0].flops == 8 * one[0].flops
    assert one[0].bytes == 4 * (32 + 32 * 16 + 16)


def test_shares_are_rates_over_the_machines_peaks(program):
    found = profile(program, arrays(8), threads=1, rounds=2)
    assert found.peak > 0 and found.bandwidth > 0
    for x in found.launches:
        assert x.of_peak == pytest.approx(x.flops / x.seconds / found.peak)
        assert x.of_bandwidth == pytest.approx(x.bytes / x.seconds / found.bandwidth)


def test_an_artifact_knows_no_work_at_other_sizes(program, tmp_path):
    program.save(tmp_path / "net.effcc")
    loaded = effcc.load(str(tmp_path / "net.effcc"))
    (same, *_), (other, *_) = (profile(loaded, arrays(n), threads=1, rounds=1).launches for n in (1, 8))
    assert same.flops == 2 * 32 * 16 and other.flops is other.of_peak is other.of_bandwidth is None
    assert other.template == same.template
