"""Complex tensors as pairs of real ones: the catalogue has no complex dtype, so handlers here build on both parts.

An op that only moves elements runs its ordinary handler on each part (`MOVING`); arithmetic and Fourier transforms are
spelled out. A discrete Fourier transform of N = N1·N2 is taken apart into those of N1 and N2 (Cooley and Tukey 1965),
down to products with small matrices of roots of unity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from effcc.errors import UnsupportedError
from effcc.frontends.torch.emitter import Complex, Emitter, handler_of, lowers_complex, static
from effcc.ir import Value

MOVING = frozenset(
    "view _unsafe_view reshape _reshape_alias permute transpose t expand unsqueeze squeeze slice select cat stack "
    "clone alias split split_with_sizes unbind flip roll index index_select gather repeat unfold as_strided detach "
    "lift_fresh_copy constant_pad_nd empty new_empty zeros zeros_like copy slice_scatter select_scatter "
    "diagonal".split()
)


def on_parts(target: str, e: Emitter, args: Any, kwargs: Any) -> Any:
    """Run an op that moves elements on the real and on the imaginary parts."""
    from torch.utils._pytree import tree_map_only

    handler = handler_of(target)
    assert handler is not None
    re, im = (
        handler(e, *tree_map_only(Complex, part, args), **tree_map_only(Complex, part, kwargs))
        for part in (lambda z: z.re, lambda z: z.im)
    )
    return tuple(map(Complex, re, im)) if isinstance(re, tuple) else Complex(re, im)


def pair(e: Emitter, x: Any) -> Complex:
    """A complex, real or plain number as a pair in the result's dtype."""
    if isinstance(x, Complex):
        return x
    if isinstance(x, complex):
        return Complex(e.number(x.real, e.dtype), e.number(x.imag, e.dtype))
    return Complex(e.tensor(x), e.number(0.0, e.dtype))


@lowers_complex("_to_copy", "prims::convert_element_type")
def to_complex(e: Emitter, x: Any, *_: Any, **__: Any) -> Complex:
    if isinstance(x, Complex):
        return Complex(e.cast(x.re, e.dtype), e.cast(x.im, e.dtype))
    re = e.cast(x, e.dtype)
    return Complex(re, e.full(re.shape, 0, e.dtype))


@lowers_complex("view_as_real")
def view_as_real(e: Emitter, z: Complex) -> Value:
    rank = len(z.re.shape)
    return e.b.concat(e.unsqueeze(z.re, rank), e.unsqueeze(z.im, rank), axis=rank)


@lowers_complex("view_as_complex")
def view_as_complex(e: Emitter, x: Value) -> Complex:
    axis = len(x.shape) - 1
    parts = (e.reshape(e.slice(x, axis, k, k + 1), x.shape[:-1]) for k in (0, 1))
    return Complex(*parts)


@lowers_complex("complex")
def complex_(e: Emitter, re: Value, im: Value) -> Complex:
    return Complex(e.broadcast(re, e.shape), e.broadcast(im, e.shape))


@lowers_complex("polar")
def polar(e: Emitter, size: Value, angle: Value) -> Complex:
    return Complex(e.b.mul(size, e.b.cos(angle)), e.b.mul(size, e.b.sin(angle)))


@lowers_complex("add", "sub")
def add(e: Emitter, x: Any, y: Any, *, alpha: Any = 1) -> Complex:
    x, y = pair(e, x), pair(e, y)
    if alpha != 1:
        y = Complex(*(e.b.mul(v, e.tensor(alpha)) for v in (y.re, y.im)))
    ours = e.b.add if ".add." in e.target else e.b.sub
    return Complex(ours(x.re, y.re), ours(x.im, y.im))


@lowers_complex("mul")
def mul(e: Emitter, x: Any, y: Any) -> Complex:
    if not isinstance(x, (Complex, complex)) or not isinstance(y, (Complex, complex)):
        z, real = (x, y) if isinstance(x, Complex) else (y, x)
        z = pair(e, z)
        return Complex(e.b.mul(z.re, e.tensor(real)), e.b.mul(z.im, e.tensor(real)))
    x, y = pair(e, x), pair(e, y)
    re = e.b.sub(e.b.mul(x.re, y.re), e.b.mul(x.im, y.im))
    return Complex(re, e.b.add(e.b.mul(x.re, y.im), e.b.mul(x.im, y.re)))


@lowers_complex("div")
def div(e: Emitter, x: Any, y: Any) -> Complex:
    if isinstance(y, (Complex, complex)):
        raise UnsupportedError("division by a complex number is not supported", hint="multiply by the conjugate")
    x = pair(e, x)
    return Complex(e.b.div(x.re, e.tensor(y)), e.b.div(x.im, e.tensor(y)))


@lowers_complex("neg", "conj_physical", "_conj_physical", "_conj")
def neg(e: Emitter, z: Complex) -> Complex:
    return Complex(z.re if "conj" in e.target else e.b.neg(z.re), e.b.neg(z.im))


@lowers_complex("abs")
def absolute(e: Emitter, z: Complex) -> Value:
    return e.b.sqrt(e.b.add(e.b.mul(z.re, z.re), e.b.mul(z.im, z.im)))


@lowers_complex("angle")
def angle(e: Emitter, z: Complex) -> Value:
    return e.b.atan2(z.im, z.re)


@lowers_complex("real", "imag")
def part(e: Emitter, z: Complex) -> Value:
    return z.re if ".real." in e.target else z.im


# -- Fourier transforms ----------------------------------------------------------------------------
def transform(e: Emitter, z: Complex, axis: int, forward: bool) -> Complex:
    """Σ_n z[n] exp(∓2πi k n / N) along one axis, unscaled."""
    rank, n = len(z.re.shape), static((z.re.shape[axis],), "a Fourier transform")[0]
    perm = [*(k for k in range(rank) if k != axis), axis]
    back = [perm.index(k) for k in range(rank)]
    z = _last(e, _each(z, lambda v: e.transpose(v, perm)), n, -1 if forward else 1)
    return _each(z, lambda v: e.transpose(v, back))


def _each(z: Complex, function: Callable[[Value], Value]) -> Complex:
    return Complex(function(z.re), function(z.im))


def _last(e: Emitter, z: Complex, n: int, sign: int) -> Complex:
    """Along the last axis: n = a·b, index n2 + b·n1, frequency k1 + a·k2."""
    a = next((d for d in range(math.isqrt(n), 1, -1) if n % d == 0), 1)
    if n <= 16 or a == 1:
        return _product(e, z, *_roots(n, n, n, sign))
    b = n // a
    batch = z.re.shape[:-1]
    z = _each(z, lambda v: e.swap(e.reshape(v, (*batch, a, b)), -1, -2))  # [.., n2, n1]
    z = _each(_last(e, z, a, sign), lambda v: e.swap(v, -1, -2))  # [.., k1, n2]
    z = _times(e, z, *_roots(a, b, n, sign))
    z = _last(e, z, b, sign)  # [.., k1, k2]
    return _each(z, lambda v: e.reshape(e.swap(v, -1, -2), (*batch, n)))


def _roots(rows: int, columns: int, n: int, sign: int) -> tuple[Any, Any]:
    """cos and sin of ±2π r c / n, computed in double precision."""
    import numpy as np

    turns = np.outer(np.arange(rows), np.arange(columns)) % n
    return np.cos(2 * np.pi * turns / n), sign * np.sin(2 * np.pi * turns / n)


def _constants(e: Emitter, z: Complex, cos: Any, sin: Any) -> tuple[Value, Value]:
    dtype = z.re.dtype
    return e.b.const(cos.astype(dtype.numpy), dtype), e.b.const(sin.astype(dtype.numpy), dtype)


def _product(e: Emitter, z: Complex, cos: Any, sin: Any) -> Complex:
    c, s = _constants(e, z, cos, sin)
    rows = _each(z, lambda v: e.unsqueeze(v, 0) if len(v.shape) == 1 else v)
    re = e.b.sub(e.b.matmul(rows.re, c), e.b.matmul(rows.im, s))
    im = e.b.add(e.b.matmul(rows.re, s), e.b.matmul(rows.im, c))
    return Complex(e.reshape(re, z.re.shape), e.reshape(im, z.re.shape))


def _times(e: Emitter, z: Complex, cos: Any, sin: Any) -> Complex:
    c, s = _constants(e, z, cos, sin)
    return Complex(e.b.sub(e.b.mul(z.re, c), e.b.mul(z.im, s)), e.b.add(e.b.mul(z.re, s), e.b.mul(z.im, c)))


def _scaled(e: Emitter, z: Complex, sizes: Any, normalization: int) -> Complex:
    """normalization: 0 none, 1 by 1/√N, 2 by 1/N."""
    n = math.prod(static(sizes, "a Fourier transform"))
    factor = {0: 1.0, 1: 1 / math.sqrt(n), 2: 1 / n}[int(normalization)]
    return z if factor == 1 else _each(z, lambda v: e.b.mul(v, e.number(factor, v.dtype)))


@lowers_complex("_fft_c2c")
def fft_c2c(e: Emitter, z: Complex, dim: Any, normalization: int, forward: bool) -> Complex:
    axes = [e.axis(d, len(z.re.shape)) for d in dim]
    for axis in axes:
        z = transform(e, z, axis, forward)
    return _scaled(e, z, [z.re.shape[k] for k in axes], normalization)


@lowers_complex("_fft_r2c")
def fft_r2c(e: Emitter, x: Value, dim: Any, normalization: int, onesided: bool) -> Complex:
    """The last of the axes is the half that is kept when onesided."""
    axes = [e.axis(d, len(x.shape)) for d in dim]
    z = Complex(x, e.full(x.shape, 0, x.dtype))
    for axis in reversed(axes):
        z = transform(e, z, axis, True)
        if onesided and axis == axes[-1]:
            z = _each(z, lambda v, k=axis: e.slice(v, k, 0, x.shape[k] // 2 + 1))
    return _scaled(e, z, [x.shape[k] for k in axes], normalization)


@lowers_complex("_fft_c2r")
def fft_c2r(e: Emitter, z: Complex, dim: Any, normalization: int, last_dim_size: Any) -> Value:
    """The missing half of the last axis is the conjugate of the given one, mirrored."""
    axes = [e.axis(d, len(z.re.shape)) for d in dim]
    *others, last = axes
    for axis in others:
        z = transform(e, z, axis, False)
    import numpy as np

    n, half = static((last_dim_size, z.re.shape[last]), "a Fourier transform")
    z = _each(z, lambda v: e.slice(v, last, 0, n // 2 + 1)) if half > n // 2 + 1 else z
    mirror = [n - k for k in range(n // 2 + 1, n)]
    if mirror:
        at = e.b.const(np.array(mirror, np.int64))
        z = Complex(
            e.b.concat(z.re, e.b.gather(z.re, at, axis=last), axis=last),
            e.b.concat(z.im, e.b.neg(e.b.gather(z.im, at, axis=last)), axis=last),
        )
    z = transform(e, z, last, False)
    return _scaled(e, z, [z.re.shape[k] for k in axes], normalization).re
