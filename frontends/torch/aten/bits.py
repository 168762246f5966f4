"""Ops that look at a number's bits or divide whole numbers: significands, neighbours, common divisors."""

from __future__ import annotations

from typing import Any

from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Builder, Tensor, Value, bool_, f64, i32, i64
from effcc.ir.types import DTYPES

INTEGER_OF = {"f64": "i64", "f32": "i32", "f16": "i16", "bf16": "i16"}


@lowers("frexp")
def frexp(e: Emitter, x: Value) -> tuple[Value, Value]:
    """x = significand · 2^exponent with 1/2 ≤ |significand| < 1, from the bits of an f64 (IEEE 754, 3.4)."""
    wide = e.cast(x, f64)
    tiny = e.b.lt(e.b.abs(wide), e.number(2.0**-1022, f64))
    bits = e.b.bitcast(e.b.where(tiny, e.b.mul(wide, e.number(2.0**54, f64)), wide), to=i64)
    field = e.b.and_(e.b.shr(bits, e.index(52)), e.index(2047))
    kept = e.b.and_(bits, e.index(-(2047 << 52) - 1))
    significand = e.b.bitcast(e.b.or_(kept, e.index(1022 << 52)), to=f64)
    exponent = e.b.sub(e.b.sub(field, e.index(1022)), e.b.where(tiny, e.index(54), e.index(0)))
    itself = e.b.or_(e.b.eq(wide, e.number(0, f64)), e.b.eq(field, e.index(2047)))
    return (e.cast(e.b.where(itself, wide, significand), x.dtype),
            e.cast(e.b.where(itself, e.index(0), exponent), i32))  # fmt: skip


@lowers("nextafter")
def nextafter(e: Emitter, x: Value, y: Value) -> Value:
    """The neighbour of x on the way to y: its bits, as an integer, one up or down."""
    x, y = e.tensor(x), e.tensor(y)
    integer = DTYPES[INTEGER_OF[x.dtype.name]]
    one = e.number(1, integer)
    bits = e.b.bitcast(x, to=integer)
    away = e.b.eq(e.b.gt(y, x), e.b.gt(x, e.number(0, x.dtype)))
    moved = e.b.bitcast(e.b.where(away, e.b.add(bits, one), e.b.sub(bits, one)), to=x.dtype)
    least = e.b.bitcast(e.b.broadcast_to(one, shape=bits.shape), to=x.dtype)
    from_zero = e.b.where(e.b.gt(y, x), least, e.b.neg(least))
    moved = e.b.where(e.b.eq(x, e.number(0, x.dtype)), from_zero, moved)
    return e.b.where(e.b.eq(x, y), y, e.b.where(e.b.or_(e.b.isnan(x), e.b.isnan(y)), e.b.add(x, y), moved))


@lowers("gcd")
def gcd(e: Emitter, x: Any, y: Any) -> Value:
    """Euclid's algorithm on every pair, until all remainders are 0."""
    a, b = (e.b.abs(e.broadcast(e.tensor(v), e.shape)) for v in (x, y))
    body = Builder("euclid")
    body.input("i", Tensor(i64, ()))
    body.input("going", Tensor(bool_, ()))
    p, q = (body.input(name, a.type) for name in "pq")
    inner = Emitter(body, e.sizes)
    zero = inner.number(0, a.dtype)
    done = body.eq(q, zero)
    rest = body.where(done, zero, body.fmod(p, body.where(done, inner.number(1, a.dtype), q)))
    left = body.any(body.ne(rest, zero), axes=tuple(range(len(a.shape))), keepdims=False)
    graph = body.graph(left, body.where(done, p, q), rest)
    start = e.b.any(e.b.ne(b, e.number(0, b.dtype)), axes=tuple(range(len(b.shape))), keepdims=False)
    return e.b.loop(e.index(2**62), start, a, b, body=graph, num_carried=2)[0]


@lowers("lcm")
def lcm(e: Emitter, x: Any, y: Any) -> Value:
    """|x / gcd · y|, 0 where both are 0."""
    divisor = gcd(e, x, y)
    a, b = e.tensor(x), e.tensor(y)
    nothing = e.b.eq(divisor, e.number(0, divisor.dtype))
    quotient = e.b.div(a, e.b.where(nothing, e.number(1, a.dtype), divisor))
    return e.b.where(nothing, e.number(0, a.dtype), e.b.abs(e.b.mul(quotient, b)))
