"""Kernel templates by themselves beside torch on as many threads: GFLOP/s, best of some runs, one line a shape.

usage: python benchmarks/single_kernels.py [contraction] [conv] [depthwise] [attention]   (THREADS=2 for two threads)
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod

import numpy as np
import torch
import torch.nn.functional as F

from effcc.backends.tvm import standalone
from effcc.backends.tvm.standalone import Kernel
from effcc.backends.tvm.templates import attention, contraction, conv, depthwise
from effcc.backends.tvm.templates.emission import dot, store

THREADS = int(os.environ.get("THREADS", "1"))
CPU = replace(standalone.CPU, threads=THREADS)
Case = tuple[str, float, Callable[[], object], Callable[[], object]]  # name, GFLOP, effcc's, torch's


def data(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def strides_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def kernel(emit: Callable[..., None], tiles: int, scratch: int, arrays: list[np.ndarray]) -> Callable[[], object]:
    """`emit(buffers, scratch, tile, epilogue)` with plain stores into the last array, ready to run."""
    out = strides_of(arrays[-1].shape)

    def body(buffers, dims, scratch, tile):
        emit(buffers, scratch, tile, lambda at, value, lanes: store(buffers[-1], value, dot(at, out), lanes))

    return Kernel(body, ["float32"] * len(arrays), lambda: tiles, 0, scratch, THREADS > 1).prepare(arrays)


def contractions() -> Iterator[Case]:
    shapes = [(128, 768, 768), (128, 3072, 768), (128, 768, 3072), (512, 512, 512), (1024, 1024, 1024), (197, 768, 768)]
    for m, n, k in [*shapes, (64, 1000, 512), (1, 3072, 768), (1, 4096, 4096), (8, 768, 768)]:
        a, w = data(m, k), data(n, k)
        spec = contraction.Contraction(m, n, k, CPU, a_strides=(k, 1))
        packed = contraction.pack(spec, w.numpy().T)

        def emit(buffers, scratch, tile, epilogue, spec=spec):
            contraction.emit(spec, tile, scratch, epilogue, *buffers[:2])

        arrays = [a.numpy(), packed, np.zeros((m, n), "f4")]
        run = kernel(emit, contraction.tiles(spec), contraction.scratch_bytes(spec), arrays)
        yield f"contraction {m}x{n}x{k}", 2e-9 * m * n * k, run, lambda a=a, w=w: F.linear(a, w)


def convolutions() -> Iterator[Case]:
    for c, o, size, k, s, p in [
        (3, 64, 224, 7, 2, 3), (64, 64, 56, 3, 1, 1), (128, 128, 28, 3, 1, 1), (256, 256, 14, 3, 1, 1),
        (512, 512, 7, 3, 1, 1), (64, 256, 56, 1, 1, 0), (256, 64, 56, 1, 1, 0), (1024, 256, 14, 1, 1, 0),
        (512, 2048, 7, 1, 1, 0), (256, 512, 28, 1, 2, 0),
    ]:  # fmt: skip
        x = data(1, c, size, size).to(memory_format=torch.channels_last)
        layer = torch.nn.Conv2d(c, o, k, s, p, bias=False).to(memory_format=torch.channels_last)
        side = (size + 2 * p - k) // s + 1
        window = conv.window((k, k), (s, s), (1, 1), (p, p))
        spec = conv.Convolution(1, (1, size, size), (1, side, side), c, o, window, CPU)
        weights = conv.pack(spec, layer.weight.detach().contiguous().numpy())

        def emit(buffers, scratch, tile, epilogue, spec=spec):
            conv.emit(spec, tile, scratch, epilogue, *buffers[:2])

        arrays = [x.permute(0, 2, 3, 1).numpy(), weights, np.zeros((1, 1, side, side, o), "f4")]
        run = kernel(emit, conv.tiles(spec), conv.scratch_bytes(spec), arrays)
        yield (
            f"conv {c}->{o} {size}x{size} {k}x{k}/{s}",
            2e-9 * side * side * c * o * k * k,
            run,
            lambda f=layer, x=x: f(x),
        )


def depthwise_convolutions() -> Iterator[Case]:
    for c, size, k, s in [(32, 112, 3, 1), (64, 112, 3, 2), (144, 56, 3, 1), (240, 14, 5, 1), (960, 7, 3, 1)]:
        x = data(1, c, size, size).to(memory_format=torch.channels_last)
        layer = torch.nn.Conv2d(c, c, k, s, k // 2, groups=c, bias=False).to(memory_format=torch.channels_last)
        side = (size - 1) // s + 1
        window = conv.window((k, k), (s, s), (1, 1), (k // 2, k // 2))
        spec = depthwise.WindowFold("depthwise", 1, (1, size, size), (1, side, side), c, window, CPU)
        weights = depthwise.pack(layer.weight.detach().contiguous().numpy())

        def emit(buffers, scratch, tile, epilogue, spec=spec):
            depthwise.emit(spec, tile, epilogue, *buffers[:2])

        arrays = [x.permute(0, 2, 3, 1).numpy(), weights, np.zeros((1, 1, side, side, c), "f4")]
        run = kernel(emit, depthwise.tiles(spec), 64, arrays)
        yield f"depthwise {c} {size}x{size} {k}x{k}/{s}", 2e-9 * side * side * c * k * k, run, lambda f=layer, x=x: f(x)


def attentions() -> Iterator[Case]:
    for h, lq, lk, d, causal in [
        (12, 128, 128, 64, False), (12, 197, 197, 64, False), (12, 512, 512, 64, True), (16, 1024, 1024, 64, False),
        (12, 1, 1024, 64, False), (32, 1, 1024, 128, False),
    ]:  # fmt: skip
        q, k, v = data(1, lq, h, d), data(1, lk, h, d), data(1, lk, h, d)
        at = (lq * h * d, d, h * d, 1), (lk * h * d, d, h * d, 1), (lk * h * d, d, h * d, 1)
        spec = attention.Attention(h, h, lq, lk, d, d, *at, d**-0.5, CPU, (1,), causal=0 if causal else None)

        def emit(buffers, scratch, tile, epilogue, spec=spec):
            attention.emit(spec, tile, scratch, epilogue, *buffers[:3])

        arrays = [q.numpy(), k.numpy(), v.numpy(), np.zeros((1, h, lq, d), "f4")]
        run = kernel(emit, attention.tiles(spec), attention.scratch_bytes(spec), arrays)
        heads = [x.transpose(1, 2) for x in (q, k, v)]
        work = 4e-9 * h * lq * lk * d / (2 if causal else 1)
        name = f"attention {h} heads {lq}x{lk}x{d}{' causal' if causal else ''}"
        yield name, work, run, lambda x=heads, c=causal: F.scaled_dot_product_attention(*x, is_causal=c)


FAMILIES = {
    "contraction": contractions, "conv": convolutions, "depthwise": depthwise_convolutions, "attention": attentions,
}  # fmt: skip


def best(functions: list[Callable[[], object]], seconds: float = 1.0) -> list[float]:
    """The shortest time of each, run in turns."""
    times = [float("inf")] * len(functions)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for i, function in enumerate(functions):
            start = time.perf_counter()
            function()
            times[i] = min(times[i], time.perf_counter() - start)
    return times


def main() -> None:
    torch.set_num_threads(THREADS)
    os.environ.setdefault("TVM_NUM_THREADS", str(THREADS))
    print(f"{'GFLOP/s':40} {'effcc':>8} {'torch':>8} {'ratio':>6}")
    with torch.no_grad():
        for family in sys.argv[1:] or FAMILIES:
            for name, work, ours, theirs in FAMILIES[family]():
                ours_time, theirs_time = best([ours, theirs])
                ratio = theirs_time / ours_time
                print(f"{name:40} {work / ours_time:8.1f} {work / theirs_time:8.1f} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
