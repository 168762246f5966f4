"""Graphs large enough for several tiles a launch, one of each family, and programs of them by both schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from effcc.backends.tvm.backend import executable
from effcc.backends.tvm.build import build
from effcc.backends.tvm.lower import lower
from effcc.backends.tvm.tiles import graph as tile_graph
from effcc.backends.tvm.tiles.program import tiled
from effcc.driver import pipeline_of
from effcc.ir import Builder, Graph, Tensor, f32, i64
from effcc.ir.blob import Blob
from effcc.machine import parse
from effcc.pipeline import Context, PassManager

RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def x(b: Builder, *shape: int, dtype: Any = f32) -> Any:
    return b.input(f"x{len(b.inputs)}", Tensor(dtype, shape))


def const(b: Builder, *shape: int) -> Any:
    return b.const(Blob(floats(*shape)))


def conv(b: Builder, v: Any, features: int, size: int = 3, stride: int = 1, groups: int = 1, pad: int = 1) -> Any:
    w = const(b, features, v.shape[1] // groups, size, size)
    sizes = {"strides": (stride,) * 2, "pads": (pad,) * 4, "dilations": (1, 1)}
    return b.conv(v, w, const(b, features), groups=groups, **sizes)


def maps(b: Builder) -> Any:
    a, c = x(b, 60, 1000), x(b, 60, 1)
    return b.relu(b.add(b.mul(a, c), x(b, 1000))), b.exp(a)


def residual_convs(b: Builder) -> Any:
    a = x(b, 1, 16, 24, 28)
    y = b.relu(conv(b, a, 32))
    z = b.relu(conv(b, y, 32, stride=2))
    skip = conv(b, y, 32, size=1, stride=2, pad=0)
    u = b.relu(b.add(conv(b, z, 32), skip))
    return b.add(b.relu(conv(b, u, 32)), u)


def conv_chain(b: Builder) -> Any:
    y = x(b, 1, 16, 64, 28)
    for _ in range(7):
        y = b.relu(conv(b, y, 16))
    return y


def groups(b: Builder) -> Any:
    a = x(b, 2, 32, 17, 19)
    return conv(b, b.relu(conv(b, a, 64, groups=4)), 32, groups=2, stride=2)


def depthwise(b: Builder) -> Any:
    a = x(b, 1, 32, 24, 24)
    return conv(b, b.relu(conv(b, conv(b, a, 48, size=1, pad=0), 48, groups=48, stride=2)), 16, size=1, pad=0)


def pools(b: Builder) -> Any:
    geometry = {"kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    a = b.relu(conv(b, x(b, 2, 8, 30, 31), 16))
    y = b.max_pool(a, **geometry)
    return b.avg_pool(y, **geometry), b.mean(y, axes=(2, 3))


def products(b: Builder) -> Any:
    a = x(b, 200, 96)
    y = b.gelu(b.add(b.matmul(a, const(b, 96, 300)), const(b, 300)))
    return b.add(b.matmul(y, const(b, 300, 96)), a)


def batched_products(b: Builder) -> Any:
    q, k = x(b, 2, 3, 70, 40), x(b, 2, 3, 50, 40)
    return b.matmul(b.softmax(b.matmul(q, k, transpose_b=True), axis=3), b.relu(k))


def norms(b: Builder) -> Any:
    a = x(b, 130, 256)
    y = b.layer_norm(a, const(b, 256), const(b, 256), axis=1)
    return b.add(b.softmax(b.matmul(y, const(b, 256, 256)), axis=1), a), b.mean(y, axes=(1,), keepdims=True)


def transformer(b: Builder) -> Any:
    a = x(b, 2, 65, 64)
    y = b.layer_norm(a, const(b, 64), const(b, 64), axis=2)

    def heads(w: Any) -> Any:
        return b.transpose(b.reshape(b.matmul(y, w), shape=(2, 65, 4, 16)), perm=(0, 2, 1, 3))

    o = b.attention(*(heads(const(b, 64, 64)) for _ in range(3)), causal=True)
    o = b.reshape(b.transpose(o, perm=(0, 2, 1, 3)), shape=(2, 65, 64))
    r = b.add(b.matmul(o, const(b, 64, 64)), a)
    hidden = b.gelu(b.matmul(b.layer_norm(r, const(b, 64), const(b, 64), axis=2), const(b, 64, 256)))
    return b.add(b.matmul(hidden, const(b, 256, 64)), r)


def dense_net(b: Builder) -> Any:
    parts = [conv(b, x(b, 1, 8, 20, 22), 8)]
    for _ in range(3):
        parts.append(b.relu(conv(b, b.concat(*parts, axis=1), 8)))
    return b.concat(*parts, axis=1)


def views(b: Builder) -> Any:
    a = b.exp(x(b, 8, 90, 64))
    y = b.transpose(a, perm=(1, 0, 2))
    z = b.slice(b.reshape(y, shape=(90, 512)), starts=(5, 511), stops=(85, -1), steps=(2, -1))
    w = b.pad(z, pads=(1, 0, 2, 3), mode="reflect")
    return b.concat(w, b.sum(w, axes=(0,), keepdims=True), axis=0), b.cumsum(y, axis=1)


def indices(b: Builder) -> Any:
    a = b.tanh(x(b, 300, 200))
    i = x(b, 150, dtype=i64)
    values, places = b.topk(a, k=7, axis=1)
    return b.gather(a, i, axis=0), values, places, b.scatter_elements(a, b.reshape(i, shape=(1, 150)), b.slice(
        a, starts=(0, 0), stops=(1, 150), steps=(1, 1)), axis=0, reduction="add")  # fmt: skip


def folds(b: Builder) -> Any:
    a = b.mul(x(b, 40, 30, 50), x(b, 40, 1, 50))
    return b.sum(a, axes=(0,)), b.amax(a, axes=(1,)), b.argmax(a, axis=0), b.transpose(b.sum(a, axes=(0, 2)), perm=(0,))


def branches(b: Builder) -> Any:
    """Eight independent branches of small kernels that meet."""
    a = x(b, 64, 128)
    ways = [b.matmul(b.tanh(b.matmul(a, const(b, 128, 64))), const(b, 64, 32)) for _ in range(8)]
    total = ways[0]
    for way in ways[1:]:
        total = b.add(total, b.softmax(way, axis=1))
    return total


FAMILIES: dict[str, Callable[[Builder], Any]] = {
    f.__name__: f
    for f in (
        maps, residual_convs, conv_chain, groups, depthwise, pools, products, batched_products, norms, transformer,
        dense_net, views, indices, folds, branches,
    )
}  # fmt: skip


def made(build_graph: Callable[[Builder], Any]) -> Graph:
    b = Builder(build_graph.__name__)
    results = build_graph(b)
    return b.graph(*(results if isinstance(results, tuple) else (results,)))


def schedules(graph: Graph, threads: int = 2, **passes: Any) -> SimpleNamespace:
    """plan, under (barriers), without (tiles), tiled, inputs."""
    from effcc.driver import backend_of

    machine = parse(f"cpu{{threads={threads}}}")
    optimized = PassManager().run(graph, pipeline_of(backend_of("cpu"), None, {}), Context(machine=machine))
    plan = lower(optimized, machine)
    built = build(plan, machine)
    tiles = tiled(plan, built.program, built.names, machine, threads)
    under = executable(built)
    inputs = [
        RANDOM.integers(0, 100, v.shape) if v.dtype == i64 else floats(*v.shape)  # type: ignore[arg-type]
        for v in graph.inputs
    ]
    return SimpleNamespace(plan=plan, built=built, tiled=tiles, under=under, without=under.sharing(tiles.program),
                           inputs=inputs, replace=replace)  # fmt: skip


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both programs of a family, with as many tasks as there are tiles."""
    monkeypatch.setattr(tile_graph, "LEAST_NS", 1)
    monkeypatch.setattr(tile_graph, "GOOD_NS", 1)
    monkeypatch.setattr(tile_graph, "MOST_TASKS", 1000)
    return schedules(made(FAMILIES[request.param]))
