"""How the default pipeline's time grows with the graph: 1k, 3k and 10k ops (asked: t(10k) / t(1k) at most 15).

    python benchmarks/pipeline_scaling.py

The graphs are stacks of pre-norm blocks in the primitive ops that exporters emit, each with weights of its own, so
every pass finds work in proportion to the size.
"""

from __future__ import annotations

import time

import numpy as np

from effcc.driver import backend_of
from effcc.ir.builder import Builder
from effcc.ir.graph import Graph, Value
from effcc.ir.types import Tensor, f32
from effcc.pipeline import Context, PassManager, parse_pipeline

WIDTH = 32
SIZES = (1_000, 3_000, 10_000)


def block(b: Builder, x: Value, random: np.random.Generator) -> Value:
    """x + W2 gelu(W1 layer_norm(x)), in about thirty ops counted with their constants."""

    def weight(*shape: int) -> Value:
        return b.const(random.standard_normal(shape).astype(np.float32) / WIDTH**0.5)

    centred = b.sub(x, b.mean(x, axes=(1,), keepdims=True))
    variance = b.mean(b.mul(centred, centred), axes=(1,), keepdims=True)
    normal = b.mul(centred, b.rsqrt(b.add(variance, b.const(np.float32(1e-5)))))
    normal = b.add(b.mul(normal, weight(WIDTH)), weight(WIDTH))
    hidden = b.add(b.matmul(normal, b.transpose(weight(WIDTH, WIDTH), perm=(1, 0))), weight(WIDTH))
    gate = b.add(b.erf(b.div(hidden, b.const(np.float32(2**0.5)))), b.const(np.float32(1)))
    hidden = b.mul(b.mul(hidden, gate), b.const(np.float32(0.5)))
    return b.add(x, b.add(b.matmul(hidden, weight(WIDTH, WIDTH)), weight(WIDTH)))


def stack(ops: int) -> Graph:
    random = np.random.default_rng(0)
    b = Builder("stack")
    x = b.input("x", Tensor(f32, (16, WIDTH)))
    while len(b.nodes) < ops:
        x = block(b, x, random)
    return b.graph(x)


def seconds(graph: Graph) -> tuple[float, Graph]:
    backend = backend_of("cpu")
    passes, ctx = parse_pipeline(backend.pipeline()), Context(machine=backend.machine)
    start = time.perf_counter()
    after = PassManager().run(graph, passes, ctx)
    return time.perf_counter() - start, after


def main() -> None:
    seconds(stack(100))  # imports, tables of rules
    times = {}
    for ops in SIZES:
        graph = stack(ops)
        times[ops], after = seconds(graph)
        print(f"{len(graph.nodes):6} ops: {times[ops]:7.2f} s, {len(after.nodes)} ops after")
    print(f"t({SIZES[-1]}) / t({SIZES[0]}) = {times[SIZES[-1]] / times[SIZES[0]]:.1f}  (asked: 15)")


if __name__ == "__main__":
    main()
