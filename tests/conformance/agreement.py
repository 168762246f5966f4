"""Does a result agree with torch's? Bit for bit, else within bounds that are derived for each element.

Integers and booleans have to be equal. A float may be off from an f64 run of torch by twice torch's own error and a few
units in the last place. Where that is too strict (torch was lucky in one element) it may be off by as much as torch is
in the worst element of the same result, or by what rounding may do to the graph that was compiled
(`effcc.analysis.precision`). NaN and infinities have to stand where torch's stand, or where f64 has them once
rounded to the dtype: torch's half precisions overflow in places of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map

ULPS = 4
WIDE = {torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64,
        torch.complex32: torch.complex128, torch.complex64: torch.complex128}  # fmt: skip
PERMUTATIONS = 500
MARGIN = 1.25
POINTS = 200
LEVELS = 60


def widened(x: Any) -> Any:
    """Arguments with every float (and every float dtype that they name) made f64."""
    if isinstance(x, torch.Tensor):
        return x.to(WIDE[x.dtype]) if x.dtype in WIDE else x
    return WIDE.get(x, x) if isinstance(x, torch.dtype) else x


def exact_run(function: Callable[..., Any], arguments: Any) -> Any:
    """The function's result in f64, or None where torch has no f64 kernel for it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        return function(*tree_map(widened, arguments))
    except Exception:
        return None
    finally:
        torch.set_default_dtype(before)


def difference(got: Any, want: Any, exact: Callable[[], Any], bound: Callable[[], Any]) -> str | None:
    """How a result is not torch's; None where it agrees.

    exact: torch's result in f64 (or None). bound: by how much rounding may move each element. Both are asked only where
    bits differ.
    """
    if not isinstance(want, torch.Tensor):
        same = type(got) is type(want) and (got == want or (isinstance(want, float) and got != got and want != want))
        return None if same else f"{got!r}, not {want!r}"
    if not isinstance(got, torch.Tensor):
        return f"a {type(got).__name__}, not a tensor"
    if got.shape != want.shape or got.dtype != want.dtype:
        return f"{_type(got)}, not {_type(want)}"
    got, want = _parts(got), _parts(want)
    same = (got == want) | (got.isnan() & want.isnan()) if want.is_floating_point() else got == want
    if bool(same.all()):
        return None
    if not want.is_floating_point():
        return _first(~same, got, want, want)
    truth = exact()
    truth = want.double() if truth is None or truth.shape != _parts_shape(want, truth) else _parts(truth).double()
    off = (got.double() - truth).abs()
    own = torch.where(want.isfinite() & truth.isfinite(), (want.double() - truth).abs(), 0.0)
    limit = 2 * own + ULPS * _ulp(truth, want)
    limit = torch.maximum(limit, own.max())
    good = same | (off <= limit) | (got == truth.to(got.dtype))
    if not bool(good.all()):
        moved = bound()
        if moved is not None and moved.shape == _parts_shape(want, moved):
            good |= off <= limit + _parts(moved).double().nan_to_num(nan=0.0)
    return None if bool(good.all()) else _first(~good, got, want, truth)


def _parts(t: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(t.resolve_conj().resolve_neg()) if t.is_complex() else t


def _parts_shape(real: torch.Tensor, t: torch.Tensor) -> torch.Size:
    """The shape that t has if it is what `real` holds the parts of, or `real` itself."""
    return real.shape[:-1] if t.is_complex() else real.shape


def _ulp(truth: torch.Tensor, want: torch.Tensor) -> torch.Tensor:
    """A unit in the last place of each element (of a complex number: of its modulus), in `want`'s dtype."""
    info = torch.finfo(want.dtype)
    return info.eps * truth.abs().nan_to_num(posinf=info.max).clamp(min=info.tiny)


def _first(bad: torch.Tensor, got: torch.Tensor, want: torch.Tensor, truth: torch.Tensor) -> str:
    at = tuple(int(i) for i in bad.nonzero()[0])
    count = f", {int(bad.sum())} of {bad.numel()} elements" if bad.numel() > 1 else ""
    return f"at {list(at)}: {got[at].item()}, torch {want[at].item()}, exact {truth[at].item()}{count}"


def _type(t: torch.Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}"


def distributions_differ(ours: torch.Tensor, theirs: torch.Tensor) -> str | None:
    """Two samples against each other, [runs, elements] each; None where one distribution may have made both.

    The distance of Kolmogorov and Smirnov, beside what it is when runs change sides at random: elements of one run need
    not be independent (a dropped feature map), runs are.
    """
    runs = torch.cat([ours, theirs]).double().nan_to_num(nan=-1e300)
    if not runs.numel():
        return None
    significand, exponent = torch.frexp(runs)
    runs = torch.ldexp((significand * LEVELS).round() / LEVELS, exponent)  # roundings are no other distribution
    values = runs.flatten().sort().values
    points = values[torch.linspace(0, len(values) - 1, min(POINTS, len(values))).long()].unique()
    below = (runs.unsqueeze(-1) <= points).double().mean(1)  # [runs, points]
    n = len(ours)

    def distance(order: torch.Tensor) -> float:
        return float((below[order[:n]].mean(0) - below[order[n:]].mean(0)).abs().max())

    generator = torch.Generator().manual_seed(0)
    chance = max(distance(torch.randperm(len(runs), generator=generator)) for _ in range(PERMUTATIONS))
    apart = distance(torch.arange(len(runs)))
    return None if apart <= MARGIN * chance else f"distributed otherwise: {apart:.2f}, by chance up to {chance:.2f}"
