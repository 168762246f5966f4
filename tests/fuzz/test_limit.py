"""The limit on the processor's time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from effcc.fuzz.limit import OutOfTime, limited


def work(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


def test_what_takes_too_long_is_ended_past_who_catches_exceptions():
    with pytest.raises(OutOfTime), limited(0.02):
        try:
            work(10)
        except Exception:
            pytest.fail("taken for a failure of what is inside")


def test_the_error_can_be_another():
    with pytest.raises(TimeoutError, match="long"), limited(0.02, lambda: TimeoutError("long")):
        work(10)


def test_waiting_does_not_count_and_nothing_rings_later():
    before = signal.getsignal(signal.SIGPROF)
    with limited(0.2):
        time.sleep(0.3)
    assert signal.getsignal(signal.SIGPROF) is before
    work(0.3)


def test_memory_beyond_the_limit_is_an_error():
    code = """if True:
        import numpy as np
        from effcc.fuzz.limit import MEMORY, limit_memory
        limit_memory()
        np.ones(1000)
        try:
            np.ones(MEMORY)
        except MemoryError:
            print("refused")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
