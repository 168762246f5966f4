"""The largest error of each float32 function over all 2^32 floats, in units in the last place, against float64.

usage: python benchmarks/vector_math.py [step] [function...]     (minutes a function; with a step, every step-th float)
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from tvm.tirx.script import builder as T

from effcc.backends.tvm import vector_math
from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates.emission import bind, load, store

FUNCTIONS = [name for name in vector_math.LARGEST_ERROR if name not in ("pow", "atan2")]
CHUNK = 1 << 22


def kernel(name: str, count: int) -> Kernel:
    """y[i] = name(x[i]) over `count` floats, `count` a multiple of the lanes."""
    lanes = CPU.lanes("float32")

    def body(buffers, dims, scratch, tile):
        with T.serial(T.int64(0), T.int64(count // lanes)) as i:
            value = getattr(vector_math, name)(bind, load(buffers[0], i * lanes, lanes))
            store(buffers[1], value, i * lanes, lanes)

    return Kernel(body, ["float32", "float32"], lambda: 1)


def exact(name: str, x: np.ndarray) -> np.ndarray:
    """The function in float64."""
    with np.errstate(all="ignore"):
        return getattr(torch, name)(torch.from_numpy(x).double()).numpy()


def errors(got: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """|got - wanted| in ulps of float32 at `wanted` (float64); infinite where one is NaN, or signs of zero differ."""
    with np.errstate(all="ignore"):
        rounded = wanted.astype(np.float32)
        ulp = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, np.float32(1)))).astype(np.float64)
        below = np.abs(rounded) > np.abs(wanted)  # the ulp of the binade that holds the exact value
        ulp = np.where(below & (np.frexp(np.abs(rounded))[0] == 0.5) & (ulp > 2.0**-149), ulp / 2, ulp)
        distance = np.abs(got.astype(np.float64) - wanted) / ulp
        same = (got == rounded) & (np.signbit(got) == np.signbit(rounded))
        distance = np.where(np.isfinite(rounded) & (got != 0) | (wanted != 0), distance, np.inf)
        distance = np.where(same, np.where(np.isfinite(rounded), np.where(wanted == 0, 0, distance), 0), distance)
    return np.where(np.isnan(got) & np.isnan(wanted), 0, np.where(np.isnan(distance), np.inf, distance))


def worst(name: str, step: int = 1) -> tuple[float, float]:
    """(largest error, where) over every step-th float."""
    run = kernel(name, CHUNK)
    largest, where = 0.0, 0.0
    y = np.zeros(CHUNK, np.float32)
    for start in range(0, 1 << 32, CHUNK * step):
        x = np.arange(start, start + CHUNK * step, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
        run([x, y])
        error = errors(y, exact(name, x))
        at = int(error.argmax())
        if error[at] > largest:
            largest, where = float(error[at]), float(x[at])
    return largest, where


def main() -> None:
    names = sys.argv[1:]
    step = int(names.pop(0)) if names and names[0].isdigit() else 1
    for name in names or FUNCTIONS:
        largest, where = worst(name, step)
        print(f"{name:10} {largest:.3f} ulp at {where!r}", flush=True)


if __name__ == "__main__":
    main()
