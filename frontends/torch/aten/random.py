"""Random ops: each draws from an explicit (seed, offset); the seed is an input of the graph, new at each call."""

from __future__ import annotations

import math
from typing import Any

from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value, f32, f64, i64


def uniform(e: Emitter, shape: Any, dtype: Any = f32) -> Value:
    """Uniform in [0, 1)."""
    return e.b.random_uniform(*e.draw(shape), shape=tuple(shape), dtype=dtype)


@lowers("rand", "rand_like")
def rand(e: Emitter, *_: Any, **__: Any) -> Value:
    wide = e.compute_dtype(e.dtype)
    return e.cast(uniform(e, e.shape, wide), e.dtype)


@lowers("randn", "randn_like")
def randn(e: Emitter, *_: Any, **__: Any) -> Value:
    wide = e.compute_dtype(e.dtype)
    return e.cast(e.b.random_normal(*e.draw(e.shape), shape=e.shape, dtype=wide), e.dtype)


@lowers("normal_functional", "normal.float_float")
def normal(e: Emitter, *args: Any, generator: Any = None, **_: Any) -> Value:
    numbers = [a for a in args if isinstance(a, (int, float))]
    mean, std = (numbers + [0.0, 1.0])[:2] if len(numbers) != 1 else (numbers[0], 1.0)
    return e.b.add(e.b.mul(randn(e), e.tensor(std)), e.tensor(mean))


@lowers("prims::normal")
def prims_normal(e: Emitter, shape: Any, *, mean: Any, std: Any, **_: Any) -> Value:
    return e.b.add(e.b.mul(randn(e), e.tensor(std)), e.tensor(mean))


@lowers("rrelu_with_noise_functional")
def rrelu(
    e: Emitter, x: Value, noise: Value, low: float = 1 / 8, high: float = 1 / 3, training: bool = False, *_: Any
) -> tuple[Value, Value]:
    """Results: x, or a random part of it where it is not positive, and the factors."""
    one = e.number(1, x.dtype)
    if training:
        drawn = e.b.add(e.b.mul(rand(e), e.number(high - low, x.dtype)), e.number(low, x.dtype))
        noise = e.b.where(e.b.le(x, e.number(0, x.dtype)), drawn, one)
        return e.b.mul(x, noise), noise
    slope = e.number((low + high) / 2, x.dtype)
    return e.b.where(e.b.le(x, e.number(0, x.dtype)), e.b.mul(x, slope), x), noise


@lowers("uniform")
def uniform_between(e: Emitter, x: Value, low: float = 0.0, high: float = 1.0, **bounds: Any) -> Value:
    low, high = bounds.get("from", low), bounds.get("to", high)
    return e.b.add(e.b.mul(rand(e), e.tensor(high - low)), e.tensor(low))


@lowers("bernoulli.p", "bernoulli.default")
def bernoulli(e: Emitter, x: Value, p: float | None = None, *, generator: Any = None) -> Value:
    wide = e.compute_dtype(x.dtype) if x.dtype.is_float else f32
    chance = e.cast(x, wide) if p is None else e.number(p, wide)
    return e.cast(e.b.lt(uniform(e, e.shape, wide), chance), e.dtype)


@lowers("native_dropout")
def dropout(e: Emitter, x: Value, p: float, train: bool | None = True) -> tuple[Value, Value]:
    """Results: x scaled by 1/(1-p) where kept, and what was kept."""
    from effcc.ir import bool_

    if train is False or p == 0:
        return x, e.full(x.shape, True, bool_)
    if p == 1:
        return e.full(x.shape, 0, x.dtype), e.full(x.shape, False, bool_)
    keep = e.b.ge(uniform(e, x.shape), e.number(p, f32))
    kept = e.b.mul(x, e.number(1 / (1 - p), x.dtype))
    return e.b.where(keep, kept, e.number(0, x.dtype)), keep


@lowers("randint", "randint.low", "randint_like", "randint_like.low_dtype")
def randint(e: Emitter, *args: Any, **_: Any) -> Value:
    numbers = [a for a in args if not isinstance(a, (list, tuple)) and not hasattr(a, "type")]
    low, high = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
    span = e.b.sub(e.tensor(high, f64), e.tensor(low, f64))
    drawn = e.b.floor(e.b.mul(uniform(e, e.shape, f64), span))
    return e.cast(e.b.add(e.cast(drawn, i64), e.tensor(low, i64)), e.dtype)


@lowers("randperm")
def randperm(e: Emitter, *_: Any, **__: Any) -> Value:
    keys = uniform(e, e.shape, f64)
    return e.cast(e.b.sort(keys, axis=0, descending=False, stable=True)[1], e.dtype)


@lowers("exponential")
def exponential(e: Emitter, x: Value, lambd: float = 1.0, *, generator: Any = None) -> Value:
    """-log(1 - u) / lambda"""
    u = rand(e)
    return e.b.mul(e.b.neg(e.b.log1p(e.b.neg(u))), e.tensor(1 / lambd))


@lowers("geometric")
def geometric(e: Emitter, x: Value, p: float, *, generator: Any = None) -> Value:
    """⌈ln(1 - u) / ln(1 - p)⌉, at least 1."""
    u = uniform(e, e.shape, f64)
    trials = e.b.ceil(e.b.mul(e.b.log1p(e.b.neg(u)), e.number(1 / math.log1p(-p), f64)))
    return e.cast(e.b.max(trials, e.number(1.0, f64)), e.dtype)


@lowers("cauchy", "log_normal")
def transformed(e: Emitter, x: Value, centre: float = 0.0, spread: float = 1.0, *, generator: Any = None) -> Value:
    if "cauchy" in e.target:
        angle = e.b.mul(e.b.sub(rand(e), e.tensor(0.5)), e.tensor(math.pi))
        return e.b.add(e.b.mul(e.b.tan(angle), e.tensor(spread)), e.tensor(centre))
    return e.b.exp(e.b.add(e.b.mul(randn(e), e.tensor(spread)), e.tensor(centre)))


@lowers("multinomial")
def multinomial(e: Emitter, p: Value, num_samples: int, replacement: bool = False, *, generator: Any = None) -> Value:
    """Without replacement: the largest p^(1/Exp) (Efraimidis and Spirakis 2006); with: inversion of the running sum."""
    rank = len(p.shape)
    if not replacement:
        keys = e.b.div(e.cast(p, f64), e.b.neg(e.b.log1p(e.b.neg(uniform(e, p.shape, f64)))))
        return e.b.topk(keys, k=int(num_samples), axis=rank - 1, largest=True, sorted=True)[1]
    running = e.b.cumsum(e.cast(p, f64), axis=rank - 1)
    total = e.slice(running, rank - 1, p.shape[-1] - 1, p.shape[-1])
    drawn = e.b.mul(uniform(e, e.shape, f64), total)
    passed = e.b.le(e.unsqueeze(running, rank - 1), e.unsqueeze(drawn, rank))
    return e.b.sum(e.cast(passed, i64), axes=(rank,), keepdims=False)
