"""Programs for target cuda, run through Triton's interpreter and held against the IR's meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import effcc
from effcc.analysis.precision import bounded_run
from effcc.interp import run
from effcc.ir import Builder, Graph, Tensor
from effcc.ir.types import DType

INTERPRETED = "cuda{run=interpreter}"


def graph_of(build: Callable[..., Any], *inputs: torch.Tensor, types: tuple[Tensor, ...] = ()) -> Graph:
    """The graph that build(b, *values) makes, for inputs like these (or of these types)."""
    b = Builder("graph")
    types = types or tuple(Tensor(DType.of(t.dtype), tuple(t.shape)) for t in inputs)
    made = build(b, *(b.input(f"x{k}", t) for k, t in enumerate(types)))
    return b.graph(*(made if isinstance(made, tuple) else (made,)))


def agrees(graph: Graph, *inputs: torch.Tensor) -> Any:
    """Floats within the bounds of rounding errors of the narrowest float in the graph, all else equal; the program."""
    program = effcc.compile(graph, target=INTERPRETED)
    actual, meant, bounded = program(*inputs), run(graph, *inputs), bounded_run(graph, *inputs)
    for got, want, limit in zip(actual, meant, bounded, strict=True):
        assert got.dtype == want.dtype and got.shape == want.shape
        if not got.is_floating_point():
            assert torch.equal(got, want)
            continue
        a, e = got.double(), limit.exact.double()
        same = (a == e) | (a.isnan() & e.isnan())
        far = ~(same | ((a - e).abs() <= limit.bound))
        assert not far.any(), f"{a[far][0]} for {e[far][0]}, allowed {limit.bound[far][0]}"
    return program


@pytest.fixture
def agreement() -> Callable[..., Any]:
    """agreement(build, *inputs, types=()): checks what build(b, *values) makes; gives its program."""

    def check(build: Callable[..., Any], *inputs: torch.Tensor, types: tuple[Tensor, ...] = ()) -> Any:
        return agrees(graph_of(build, *inputs, types=types), *inputs)

    return check


@pytest.fixture
def draw() -> Callable[..., torch.Tensor]:
    """Numbers of a dtype: normal ones for floats, small ones for integers."""
    generator = torch.Generator().manual_seed(0)

    def tensor(dtype: torch.dtype, *shape: int) -> torch.Tensor:
        if dtype == torch.bool:
            return torch.rand(shape, generator=generator) < 0.5
        if dtype.is_floating_point:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        low = 1 if dtype in (torch.uint8,) else -9
        return torch.randint(low, 9, shape, generator=generator).to(dtype)

    return tensor


@pytest.fixture(scope="session")
def make() -> Callable[..., Graph]:
    return graph_of


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Compiled kernels in a folder of the run's own, so that they are compiled indeed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFCC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
