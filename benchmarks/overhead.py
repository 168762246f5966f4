"""What a call costs besides its arithmetic: a program of one op on 16 numbers, from Python (asked: at most 30 us).

    python benchmarks/overhead.py
"""

from __future__ import annotations

import statistics
import timeit
from collections.abc import Callable

import numpy as np

import effcc
from effcc.ir.builder import Builder
from effcc.ir.types import Tensor, f32


def microseconds(call: Callable[[], object], repeats: int = 15, number: int = 2000) -> float:
    call()
    return statistics.median(timeit.repeat(call, repeat=repeats, number=number)) / number * 1e6


def main() -> None:
    b = Builder("one_op")
    x = b.input("x", Tensor(f32, (16,)))
    program = effcc.compile(b.graph(b.relu(x)))
    array = np.linspace(-1, 1, 16, dtype=np.float32)
    (answer,) = program(array)
    assert (answer == np.maximum(array, 0)).all()
    print(f"effcc, numpy in and out   {microseconds(lambda: program(array)):6.2f} us  (asked: 30 us)")
    print(f"numpy.maximum             {microseconds(lambda: np.maximum(array, 0)):6.2f} us")

    import torch

    tensor = torch.from_numpy(array)
    print(f"effcc, torch in and out   {microseconds(lambda: program(tensor)):6.2f} us")
    print(f"torch.relu                {microseconds(lambda: torch.relu(tensor)):6.2f} us")


if __name__ == "__main__":
    main()
