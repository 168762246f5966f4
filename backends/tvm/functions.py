"""The functions of scalar expressions in TIR, on one element or on a vector of lanes."""

from __future__ import annotations

from collections.abc import Callable

from effcc.backends.tvm.templates import emission
from effcc.backends.tvm.values import (
    Tir,
    bind,
    decode,
    encode,
    eq,
    isnan,
    lanes_of,
    literal,
    memory_dtype,
    ne,
    register_dtype,
    reinterpreted,
    round_to,
    splat,
    unequal,
    with_lanes,
    wrap,
)
from effcc.ir import scalar as s
from effcc.ir.lazy import T, tvm
from effcc.ir.types import DType, f32


def function(fn: str, dtype: DType, operands: tuple[s.Scalar, ...], args: list[Tir], lanes: int) -> Tir:
    """One of `scalar.FUNCTIONS` on register values of equal lanes."""
    kind = operands[-1].dtype
    if fn == "cast":
        return cast(args[0], operands[0].dtype, dtype, lanes)
    if fn == "bitcast":
        bits = encode(bind(args[0]), operands[0].dtype)  # narrow floats are wider in registers than in memory
        return decode(bind(reinterpreted(memory_dtype(dtype), bits, lanes)), dtype)
    if fn == "select":
        return T.Select(*args)
    if fn in ("eq", "ne", "lt", "le", "gt", "ge"):
        known = _decided(fn, kind, *args)
        if known is not None:
            return literal("bool", known, lanes)
        if kind.is_bool:
            args = [T.Cast(with_lanes("int8", lanes), a) for a in args]
        if fn == "ne" and kind.is_float:
            return unequal(*args)
        return getattr(tvm.prim, fn.upper())(*args)
    if kind.is_bool:
        return _logical(fn, args)
    if kind.is_float:
        return _float(fn, args, operands, lanes)
    return _integer(fn, kind, args, lanes)


def _decided(fn: str, kind: DType, a: Tir, b: Tir) -> bool | None:
    """What a comparison of an integer with a number at or beyond its range's end always gives (x < 0 of unsigned x):
    TVM's analyzer dies of a condition that cannot hold."""
    if _number(a) is not None:
        a, b, fn = b, a, {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}.get(fn, fn)
    value = _number(b)
    if not kind.is_integer or value is None:
        return None
    if fn in ("lt", "ge") and (value <= kind.min or value > kind.max):
        return (value > kind.max) == (fn == "lt")
    if fn in ("gt", "le") and (value < kind.min or value >= kind.max):
        return (value < kind.min) == (fn == "gt")
    if fn in ("eq", "ne") and not kind.min <= value <= kind.max:
        return fn == "ne"
    return None


def _number(x: Tir) -> int | None:
    x = x.value if isinstance(x, tvm.prim.Broadcast) else x
    return int(x.value) if isinstance(x, tvm.prim.IntImm) else None


def _logical(fn: str, args: list[Tir]) -> Tir:
    match fn:
        case "and" | "mul" | "min":
            return tvm.prim.And(*args)
        case "or" | "add" | "max":
            return tvm.prim.Or(*args)
        case "xor":
            lanes = lanes_of(args[0])
            a, b = (T.Cast(with_lanes("int8", lanes), x) for x in args)
            return ne(a, b)
        case "not":
            return tvm.prim.Not(args[0])
    raise ValueError(f"{fn} of bool")


def _opaque_zero(x: Tir) -> Tir:
    """A number 0 through its bits: TVM would fold x · 0 and 0 / x to 0 and x + 0 to x, where IEEE 754 has NaN, or a
    zero of the other sign."""
    number = x.value if isinstance(x, tvm.prim.Broadcast) else x
    if not isinstance(number, tvm.prim.FloatImm) or float(number.value) != 0:
        return x
    bits = 64 if str(number.ty) == "float64" else 32
    zero = T.reinterpret(str(number.ty), literal(f"int{bits}", 1 << (bits - 1)))  # -0 (the bits 0 mean a pointer)
    return splat(zero if str(float(number.value)).startswith("-") else _intrinsic("llvm.fabs", zero), lanes_of(x))


def _float(fn: str, args: list[Tir], operands: tuple[s.Scalar, ...], lanes: int) -> Tir:
    if fn in ("add", "mul", "div"):
        args = [_opaque_zero(x) for x in args]
    a = args[0]
    b = args[1] if len(args) > 1 else None
    match fn:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "div":
            return tvm.prim.Div(a, b)
        case "neg":
            return negate(a)
        case "abs":
            return _intrinsic("llvm.fabs", a)
        case "isnan":
            return isnan(bind(a))
        case "max" | "min":
            which = T.max if fn == "max" else T.min
            for x, y, operand in ((a, b, operands[0]), (b, a, operands[1])):
                if _is_number(x, operand):  # (on the left: an ordered comparison gives the right operand for NaN)
                    return which(x, y)
            a, b = bind(a), bind(b)
            return T.Select(isnan(a), a, which(a, b))
        case "sqrt" | "floor" | "ceil" | "trunc":
            return _intrinsic(f"llvm.{fn}", a)
        case "round":
            return _intrinsic("llvm.rint", a)
        case "rsqrt":
            return tvm.prim.Div(literal(str(a.ty).split("x")[0], 1.0, lanes), _intrinsic("llvm.sqrt", a))
        case "mod":
            raise ValueError("mod of floats is spelled with fmod")
        case "fmod":
            return per_lane(
                lambda x, y: tvm.tirx.call_pure_extern(str(x.ty), "fmodf" if str(x.ty) == "float32" else "fmod", x, y),
                args,
                lanes,
            )
        case _:
            from effcc.backends.tvm import vector_math

            return getattr(vector_math, fn)(bind, *args)


def _is_number(x: Tir, operand: s.Scalar) -> bool:
    """Whether a float is known not to be NaN: a literal, or a constant of the graph."""
    known = x.value if isinstance(x, tvm.prim.Broadcast) else x
    source = known if isinstance(known, tvm.prim.FloatImm) else operand if isinstance(operand, s.Literal) else None
    return source is not None and source.value == source.value


def negate(a: Tir) -> Tir:
    """-a; a multiplication, because 0 - a loses the sign of zero."""
    return a * literal(str(a.ty).split("x")[0], -1.0, lanes_of(a))


def _intrinsic(name: str, a: Tir) -> Tir:
    return T.call_llvm_pure_intrin(T.llvm_lookup_intrinsic_id(name), a, dtype=str(a.ty))


def per_lane(f: Callable[..., Tir], args: list[Tir], lanes: int) -> Tir:
    """Apply a scalar function to each lane: through a small buffer."""
    if lanes == 1:
        return f(*args)
    inputs = []
    for a in args:
        buffer = T.alloc_buffer((lanes,), str(a.ty).split("x")[0])
        T.buffer_store(buffer, a, [T.ramp(0, 1, lanes)])
        inputs.append(buffer)
    out = None
    for k in range(lanes):
        value = f(*(buffer[k] for buffer in inputs))
        if out is None:
            out = T.alloc_buffer((lanes,), str(value.ty))
        T.buffer_store(out, value, [k])
    assert out is not None
    return out[T.ramp(0, 1, lanes)]


def _integer(fn: str, kind: DType, args: list[Tir], lanes: int) -> Tir:
    a = args[0]
    b = args[1] if len(args) > 1 else None
    name = register_dtype(kind)
    match fn:
        case "add" | "sub" | "mul" | "neg":
            return emission.wrapped(fn, *args)
        case "abs":
            a = bind(a)
            return T.Select(a < literal(name, 0, lanes), emission.wrapped("neg", a), a)
        case "max":
            return T.max(a, b)
        case "min":
            return T.min(a, b)
        case "and":
            return T.bitwise_and(a, b)
        case "or":
            return T.bitwise_or(a, b)
        case "xor":
            return T.bitwise_xor(a, b)
        case "not":
            return T.bitwise_not(a)
        case "shl":
            return T.shift_left(a, b)
        case "shr":
            return T.shift_right(a, b)
        case "div" | "floordiv" | "mod" | "fmod":
            return divide(fn, name, a, b, lanes)
        case "pow":
            return _integer_power(name, a, b, lanes)
    raise ValueError(f"{fn} of integers")


def divide(fn: str, name: str, a: Tir, b: Tir, lanes: int) -> Tir:
    """Integer division that never traps: by 0 it divides by 1, by -1 it negates (the least integer wraps).

    Rounding down is spelled out: TVM makes a variable of the remainder by what may be negative, and refuses its own
    code where it learns the value afterwards (docs/upstream/tvm-floormod-of-zero.md).
    """
    divisor = _number(b)
    if divisor is not None and divisor > 0:
        return {"div": T.truncdiv, "fmod": T.truncmod, "floordiv": T.floordiv, "mod": T.floormod}[fn](a, b)
    a, b = bind(a), bind(b)
    zero, one, minus = (literal(name, v, lanes) for v in (0, 1, -1))
    signed, divides = not name.startswith("u"), fn in ("div", "floordiv")
    unsafe = tvm.prim.Or(eq(b, zero), eq(b, minus)) if signed else eq(b, zero)
    safe = bind(T.Select(unsafe, one, b))
    out = bind((T.truncdiv if divides else T.truncmod)(a, safe))
    if signed and fn in ("floordiv", "mod"):
        remainder = bind(T.truncmod(a, safe)) if divides else out
        above = tvm.prim.And(ne(remainder, zero), T.bitwise_xor(remainder, safe) < zero)  # of other signs
        out = T.Select(above, out - one if divides else out + safe, out)
    return T.Select(eq(b, minus), zero - a, out) if signed and divides else out


def _integer_power(name: str, a: Tir, b: Tir, lanes: int) -> Tir:
    """By squaring, wrapping; a negative exponent gives 0, or ±1 for a base of ±1."""
    bits = int(name.removeprefix("u").removeprefix("int"))
    zero, one = literal(name, 0, lanes), literal(name, 1, lanes)
    a, b = emission.hold(a), emission.hold(b)
    states = emission.Accumulators(3, 1, name, lanes)  # result, base, exponent
    states[0, 0], states[1, 0], states[2, 0] = one, a, b
    with T.serial(T.int64(0), T.int64(bits)):
        result, base, exponent = (bind(states[k, 0]) for k in range(3))
        states[0, 0] = T.Select(
            ne(T.bitwise_and(exponent, one), zero), emission.wrapped("mul", result, base), result)
        states[1, 0] = emission.wrapped("mul", base, base)
        states[2, 0] = T.shift_right(exponent, one)
    result = bind(states[0, 0])
    if name.startswith("u"):
        return result
    alternate = T.Select(ne(T.bitwise_and(b, one), zero), literal(name, -1, lanes), one)
    small = T.Select(eq(a, one), one, T.Select(eq(a, literal(name, -1, lanes)), alternate, zero))
    return T.Select(b < zero, small, result)


def cast(x: Tir, source: DType, to: DType, lanes: int) -> Tir:
    """Conversion between register values, as torch converts on this CPU."""
    target = register_dtype(to)
    if to.is_bool:
        zero = literal(register_dtype(source), 0, lanes)
        return unequal(x, zero) if source.is_float else ne(x, zero)
    if source.is_bool:
        return T.Select(x, literal(target, 1, lanes), literal(target, 0, lanes))
    if to.is_float:
        out = x if register_dtype(source) == target else T.Cast(with_lanes(target, lanes), x)
        return round_to(out, to) if source != f32 or to.bits < 32 else out
    if source.is_float and target != "int64":  # wrap through a wide signed integer
        through = "int32" if to.bits < 32 or target == "int32" else "int64"
        x = T.Cast(with_lanes(through, lanes), x)
        x = x if through == target else T.Cast(with_lanes(target, lanes), x)
    elif register_dtype(source) != target:
        number = x.value if isinstance(x, tvm.prim.Broadcast) else x
        if target.startswith("u") and isinstance(number, tvm.tirx.IntImm):  # TVM makes no unsigned of negative ones
            x = literal(target, int(number) % 2 ** int(target.removeprefix("uint")), lanes)
        else:
            x = T.Cast(with_lanes(target, lanes), x)
    return wrap(x, to)
