import pytest

peaks = pytest.importorskip("effcc.backends.tvm.peaks")


def test_peaks_are_of_a_plausible_size():
    """From a slow, busy core to one that nobody sells: wrong units or a loop that LLVM removed lie outside."""
    measured = peaks.measure()
    assert 1e9 < measured.flops < 1e12
    assert 1e8 < measured.bandwidth < 1e12
