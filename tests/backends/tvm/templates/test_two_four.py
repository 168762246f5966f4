"""Products with two of four weights against fp64, with the bound of a sum of K rounded products."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tvm")

from effcc.backends.tvm.standalone import CPU, Kernel
from effcc.backends.tvm.templates import contraction, two_four
from effcc.backends.tvm.templates.emission import Cpu, dot, store
from effcc.ir.encodings import as_fours, encode
from effcc.ir.encodings import two_four as layout

SMALL = Cpu(128, 16, l2_bytes=16 << 10, threads=2)


def random(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("f4")


def pruned(k: int, n: int) -> np.ndarray:
    """Two, one or none of each four, at every place."""
    w = as_fours(random(k, n), 0)[0]
    order = np.random.default_rng(k).permuted(np.broadcast_to(np.arange(4)[:, None], w.shape), axis=1)
    return np.where(order < np.random.default_rng(n).integers(0, 3, (k // 4, 1, n)), w, 0).reshape(k, n)


def places_of(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    k, n = w.shape
    fours = w.reshape(k // 4, 4, n)
    order = np.sort(np.argsort(fours == 0, axis=1, kind="stable")[:, :2], axis=1)
    return np.take_along_axis(fours, order, axis=1), order


@pytest.mark.parametrize("cpu", [CPU, SMALL], ids=["machine", "small"])
@pytest.mark.parametrize("m", [1, 3, 5, 33, "symbolic"])
@pytest.mark.parametrize("n,k", [(16, 4), (37, 36), (100, 64), (48, 1096)])
def test_shapes(cpu, m, n, k):
    symbolic, m = m == "symbolic", 9 if m == "symbolic" else m
    a, w = random(m, k), pruned(k, n)
    c = np.full((m, n), 77, "f4")

    def spec(rows):
        return two_four.product(rows, n, k, cpu=cpu, a_strides=(k, 1), b_strides=(0, 0))

    def body(buffers, dims, scratch, tile):
        two_four.emit(spec(dims[0] if symbolic else m), tile, scratch,
                      lambda at, value, lanes: store(buffers[3], value, dot(at, (n, 1)), lanes), *buffers[:3])

    outline = spec("rows" if symbolic else m)
    kernel = Kernel(body, ["float32", "float32", "int32", "float32"],
                    lambda *dims: contraction.tiles(spec(dims[0] if symbolic else m).dense), int(symbolic),
                    contraction.scratch_bytes(outline.dense))
    rows = (1, 4, 9) if symbolic else (m,)
    for count in rows:
        c[:] = 77
        kernel([a[:count] + 0, *two_four.pack(outline, *places_of(w)), c], (count,) if symbolic else ())
        exact = a[:count].astype("f8") @ w.astype("f8")
        bound = (k + 2) * 2.0**-24 * (np.abs(a[:count]).astype("f8") @ np.abs(w).astype("f8"))
        assert (np.abs(c[:count] - exact) <= bound).all() and (c[count:] == 77).all()


def test_panels_take_about_half_the_bytes():
    w = pruned(768, 256)
    spec = two_four.product(1, 256, 768, cpu=CPU, a_strides=(768, 1), b_strides=(0, 0))
    parts = two_four.pack(spec, *places_of(w))
    assert sum(p.nbytes for p in parts) <= 0.6 * w.nbytes
    assert sum(p.nbytes for p in encode(w, layout(0)).parts) == 0.53125 * w.nbytes
