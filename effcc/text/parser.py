"""Text -> graph: lark's LALR parser, then one walk of its tree that resolves names and checks types."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, VisitError

from effcc.errors import EffccError, ParseError, TypeRuleError, VerifyError
from effcc.ir.attributes import fits
from effcc.ir.blob import Blob
from effcc.ir.dims import Dim, Symbol, dim_max, dim_min, floordiv, mod
from effcc.ir.encodings import encode, is_compressed
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import UNKNOWN, FusedLoc, Loc, PassLoc
from effcc.ir.op import Op, op_class
from effcc.ir.types import DTYPES, DType, Encoding, Optional, RngState, Sequence, SymInt, Tensor, Type
from effcc.ir.verify import verify as verify_graph
from effcc.text.printer import elements

CONSTANTS = {"true": True, "false": False, "none": None, "inf": math.inf, "nan": math.nan, **DTYPES}
PLAIN_TYPES: dict[str, Type] = {"symint": SymInt(), "rng": RngState()}
GENERICS = {"sequence": Sequence, "optional": Optional}
FUNCTIONS = {"floordiv": (floordiv, 2), "mod": (mod, 2), "min": (dim_min, None), "max": (dim_max, None)}


def parse_graph(text: str, blobs: Mapping[str, Any], verify: bool) -> Graph:
    """See effcc.text.parse."""
    try:
        graph = _Build(blobs, verify).transform(_parser().parse(text))
    except VisitError as error:
        if isinstance(error.orig_exc, RecursionError):
            raise _too_deep() from None
        raise error.orig_exc from None
    except UnexpectedInput as error:
        raise _syntax_error(error, text) from None
    except RecursionError:
        raise _too_deep() from None
    if verify:
        verify_graph(graph)
    return graph


@cache
def _parser() -> Lark:
    grammar = (Path(__file__).parent / "effir.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=True)


def _too_deep() -> ParseError:
    return ParseError("brackets, graphs or sums are nested too deeply", hint="name parts of it by %values")


def _syntax_error(error: UnexpectedInput, text: str) -> ParseError:
    """One line: what was met, where, and what could stand there."""
    if isinstance(error, UnexpectedEOF) or getattr(getattr(error, "token", None), "type", "") == "$END":
        return ParseError("the text ends too early", where=f"line {text.count(chr(10)) + 1}", hint="is a '}' missing?")
    where = f"line {error.line}, column {error.column}"
    if isinstance(error, UnexpectedCharacters):
        names, met = error.allowed, text[error.pos_in_stream or 0]
    else:
        names = getattr(error, "accepts", None) or getattr(error, "expected", ())
        met = str(getattr(error, "token", ""))
    wanted = ", ".join(sorted(_TOKENS.get(n, n.lower()) for n in names or ()))
    return ParseError(f"unexpected {met!r}", where=where, hint=f"expected {wanted}" if wanted else None)


_TOKENS = {"LPAR": "'('", "RPAR": "')'", "LBRACE": "'{'", "RBRACE": "'}'", "LSQB": "'['", "RSQB": "']'", "COMMA": "','",
           "COLON": "':'", "EQUAL": "'='", "PLUS": "'+'", "STAR": "'*'", "MINUS": "'-'", "LESSTHAN": "'<'",
           "MORETHAN": "'>'", "__ANON_0": "'->'", "__ANON_1": "'..'", "INT": "a number", "FLOAT": "a float",
           "NAME": "a name", "VALUE": "a %value", "AT_NAME": "an @name", "STRING": "a string",
           "BACKQUOTED": "a `symbol`"}


@dataclass(frozen=True)
class _Statement:
    token: Token
    params: tuple[tuple[Token, Type], ...]
    operands: tuple[Token, ...]
    payload: Any
    attributes: dict[str, Any]
    loc: Loc


@dataclass(frozen=True)
class _Splat:
    element: str


@dataclass(frozen=True)
class _Array:
    items: list[Any]


@dataclass(frozen=True)
class _Number:
    text: str


class _Build(Transformer):
    """Leaves first, left to right, so a header's symbols are known before the body's types; one method a rule."""

    def __init__(self, blobs: Mapping[str, Any], check_types: bool):
        super().__init__()
        self.blobs = {str(k).removeprefix("sha256:"): v for k, v in blobs.items()}
        self.check_types = check_types
        self.sizes: dict[str, Symbol] = {}

    def start(self, c: list[Any]) -> Graph:
        return c[0]

    # -- graphs ------------------------------------------------------------------------------------------------------
    def symbol_name(self, c: list[Token]) -> str:
        return str(c[0]).strip("`")

    def bound(self, c: list[Any]) -> int:
        return -_integer(c[1]) if c[0] else _integer(c[1])

    def symbol(self, c: list[Any]) -> None:
        name, lo, hi = c
        self.sizes[name] = Symbol(name, lo or 0, hi)

    def param(self, c: list[Any]) -> tuple[Token, Type]:
        return c[0], c[1]

    def result(self, c: list[Any]) -> tuple[Type, Token | None]:
        return c[0], c[1]

    def one_result(self, c: list[Any]) -> list[Any]:
        return c

    def results(self, c: list[Any]) -> list[Any]:
        return [r for r in c if r is not None]

    def graph(self, c: list[Any]) -> Graph:
        name, _, *rest = c
        returned: list[Token] = rest.pop()
        statements = [r for r in rest if isinstance(r, _Statement)]
        results: list[tuple[Type, Token | None]] = next(r for r in rest if isinstance(r, list))
        scope: dict[str, Value] = {}
        inputs = tuple(self._define(scope, token, type_) for token, type_ in (r for r in rest if isinstance(r, tuple)))
        nodes = tuple(self._node(scope, s) for s in statements)
        outs = tuple(self._use(scope, t) for t in returned)
        if len(outs) != len(results):
            raise ParseError(f"{len(outs)} values are returned, the header declares {len(results)}",
                             where=_at(returned[0]) if returned else None)
        for token, v, (type_, _) in zip(returned, outs, results):
            if v.type != type_:
                raise ParseError(f"{token} is {v.type}, the header declares {type_}", where=_at(token))
        number = {v: i for i, v in enumerate(inputs)}
        aliases = tuple((i, number[self._use(scope, token)]) for i, (_, token) in enumerate(results) if token)
        return Graph(_unquote(name) if name else "", inputs, nodes, outs, aliases)

    def _define(self, scope: dict[str, Value], token: Token, type_: Type) -> Value:
        key = _key(token)
        if key in scope:
            raise ParseError(f"{token} is defined twice", where=_at(token), hint="each value is assigned once (SSA)")
        scope[key] = value = Value(type_, _unquote(token) if key[0] == "=" else "")
        return value

    def _use(self, scope: dict[str, Value], token: Token) -> Value:
        key = _key(token)
        if key not in scope:
            raise ParseError(f"{token} is not defined", where=_at(token),
                             hint="define it above; a nested graph sees only its own inputs")
        return scope[key]

    def _node(self, scope: dict[str, Value], s: _Statement) -> Node:
        operands = tuple(self._use(scope, t) for t in s.operands)
        types = tuple(type_ for _, type_ in s.params)
        op = self._op(s, types)
        if self.check_types:
            self._check(op, s, tuple(v.type for v in operands), types)
        results = tuple(self._define(scope, token, type_) for token, type_ in s.params)
        return Node(op, operands, results, s.loc)

    def _check(self, op: Op, s: _Statement, operands: tuple[Type, ...], declared: tuple[Type, ...]) -> None:
        try:
            inferred = op.result_types(operands)
        except TypeRuleError as error:
            raise ParseError(error.message, where=_at(s.token), hint=error.hint) from None
        if inferred != declared:
            shown, said = (", ".join(map(str, t)) for t in (inferred, declared))
            raise VerifyError(f"{op.name} gives {shown}, the text says {said}", where=_at(s.token))

    def _op(self, s: _Statement, types: tuple[Type, ...]) -> Op:
        try:
            cls = op_class(str(s.token))
        except EffccError as error:
            raise ParseError(error.message, where=_at(s.token), hint=error.hint) from None
        attributes = dict(s.attributes)
        fields = [f.name for f in cls.attributes()]
        if s.payload is not None:
            attributes[fields[0]] = self._constant(s, types)
        unknown = [a for a in attributes if a not in fields]
        if unknown:
            raise ParseError(f"{cls.name} has no attribute {unknown[0]!r}", where=_at(s.token),
                             hint=f"it takes {', '.join(fields) or 'none'}")
        for name, value in attributes.items():
            kind = next(f.type for f in cls.attributes() if f.name == name)
            if not fits(value, str(kind)):
                raise ParseError(f"{cls.name}: {name}={value!r} is not of type {kind}", where=_at(s.token))
        try:
            return cls(**attributes)
        except (TypeError, ValueError) as error:
            raise ParseError(f"{cls.name}: {str(error).removeprefix(cls.__name__ + '.__init__() ')}",
                             where=_at(s.token), hint=f"it takes {', '.join(fields)}") from None

    def statement(self, c: list[Any]) -> _Statement:
        *params, token, body, attributes, loc = c
        params = tuple(p for p in params if p is not None)
        operands, payload = (body, None) if isinstance(body, tuple) else ((), body)
        return _Statement(token, params, operands, payload, dict(attributes or ()), loc or UNKNOWN)

    def operands(self, c: list[Any]) -> tuple[Token, ...]:
        return tuple(t for t in c if t is not None)

    def attributes(self, c: list[Any]) -> list[Any]:
        return c

    def attribute(self, c: list[Any]) -> tuple[str, Any]:
        return str(c[0]), c[1]

    # -- constants ---------------------------------------------------------------------------------------------------
    def number(self, c: list[Any]) -> _Number:
        sign, token = c
        if token.type == "NAME" and token not in ("inf", "nan", "true", "false"):
            raise ParseError(f"{token} is not a number", where=_at(token))
        return _Number(f"{'-' if sign else ''}{token}")

    def array(self, c: list[Any]) -> _Array:
        return _Array([x for x in c if x is not None])

    def splat(self, c: list[Any]) -> _Splat:
        return _Splat(c[0].text)

    def payload(self, c: list[Any]) -> Any:
        return c[0]

    def blob(self, c: list[Any]) -> Blob:
        digest = _string(c[0]).removeprefix("sha256:")
        if digest not in self.blobs:
            raise ParseError(f"there is no blob {digest[:12]}…", where=_at(c[0]),
                             hint="pass the constants with the text: parse(text, blobs)")
        blob = self.blobs[digest]
        return blob if isinstance(blob, Blob) else Blob(blob)

    def _constant(self, s: _Statement, types: tuple[Type, ...]) -> Blob:
        type_ = types[0] if types else None
        if isinstance(s.payload, Blob):
            return s.payload
        if not isinstance(type_, Tensor) or not type_.is_static:
            raise ParseError("a constant must have a static tensor type", where=_at(s.token))
        shape: tuple[int, ...] = type_.shape  # type: ignore[assignment]
        if isinstance(s.payload, _Splat):
            one = self._elements([s.payload.element], (1,), type_.dtype, s.token)
            try:
                array = one.repeat(math.prod(shape)).reshape(shape)
            except (ValueError, MemoryError, OverflowError):
                raise ParseError(f"a constant of type {type_} does not fit memory", where=_at(s.token)) from None
            return self._laid_out(array, type_)
        texts, found = _flatten(s.payload, s.token)
        if found != shape and not (math.prod(shape) == 0 and not texts):
            raise ParseError(f"the elements have shape {list(found)}, the type is {type_}", where=_at(s.token))
        return self._laid_out(self._elements(texts, shape, type_.dtype, s.token), type_)

    def _laid_out(self, array: Any, type_: Tensor) -> Blob:
        """Elements as a constant of a type, in its layout."""
        if is_compressed(type_) and type_.encoding is not None:
            return encode(array, type_.encoding, type_.dtype)
        return Blob(array, type_.dtype)

    def _elements(self, texts: list[str], shape: tuple[int, ...], dtype: DType, token: Token) -> Any:
        try:
            return elements(texts, shape, dtype.numpy)
        except (OverflowError, ValueError) as error:
            raise ParseError(f"an element does not fit {dtype.name}: {error}", where=_at(token)) from None

    # -- attribute values --------------------------------------------------------------------------------------------
    def string(self, c: list[Token]) -> str:
        return _string(c[0])

    def tuple_value(self, c: list[Any]) -> tuple[Any, ...]:
        return tuple(c)

    def integer(self, c: list[Token]) -> int:
        return _integer(c[0])

    def real(self, c: list[Token]) -> float:
        return float(c[0])

    def name(self, c: list[Token]) -> Any:
        token = c[0]
        if token in CONSTANTS:
            return CONSTANTS[token]
        if token in PLAIN_TYPES:
            return PLAIN_TYPES[token]
        return self._symbol(token, str(token))

    def symbol_reference(self, c: list[Token]) -> Symbol:
        return self._symbol(c[0], str(c[0]).strip("`"))

    def _symbol(self, token: Token, name: str) -> Symbol:
        if name not in self.sizes:
            raise ParseError(f"the size {name!r} is not declared", where=_at(token),
                             hint=f"declare it in the header: graph @f<{name} in 1..64>(...)")
        return self.sizes[name]

    def add(self, c: list[Any]) -> Dim:
        return _size(c[0]) + _size(c[1])

    def sub(self, c: list[Any]) -> Dim:
        return _size(c[0]) - _size(c[2])

    def mul(self, c: list[Any]) -> Dim:
        return _size(c[0]) * _size(c[1])

    def neg(self, c: list[Any]) -> Any:
        return -c[1] if isinstance(c[1], float) else -_size(c[1])

    def call(self, c: list[Any]) -> Dim:
        token, *args = c
        function, arity = FUNCTIONS.get(str(token), (None, None))
        if function is None or (arity is not None and len(args) != arity):
            raise ParseError(f"{token}(...) of {len(args)} is not an expression of sizes", where=_at(token),
                             hint="use + - * floordiv(a, b) mod(a, b) min(...) max(...)")
        try:
            return function(*map(_size, args))
        except ZeroDivisionError:
            raise ParseError("a size is divided by 0", where=_at(token)) from None

    # -- types -------------------------------------------------------------------------------------------------------
    def plain_type(self, c: list[Token]) -> Type:
        if c[0] not in PLAIN_TYPES:
            raise ParseError(f"{c[0]} is not a type", where=_at(c[0]),
                             hint="write a tensor as dtype[shape], f32[3] or f32[]")
        return PLAIN_TYPES[c[0]]

    def shaped(self, c: list[Any]) -> Tensor:
        token, *dims, encoding = c
        if token not in DTYPES:
            raise ParseError(f"unknown dtype {str(token)!r}", where=_at(token), hint=f"one of {', '.join(DTYPES)}")
        shape = tuple(_size(d, token) for d in dims if d is not None)
        if negative := [d for d in shape if isinstance(d, int) and d < 0]:
            raise ParseError(f"the size {negative[0]} is below 0", where=_at(token))
        return Tensor(DTYPES[token], shape, encoding)

    def generic(self, c: list[Any]) -> Type:
        if c[0] not in GENERICS:
            raise ParseError(f"{c[0]}<...> is not a type", where=_at(c[0]), hint=f"one of {', '.join(GENERICS)}")
        return GENERICS[c[0]](c[1])

    def encoding(self, c: list[Any]) -> Encoding:
        return Encoding(_unquote(c[0]), tuple(p for p in c[1:] if p is not None))

    # -- locations ---------------------------------------------------------------------------------------------------
    def loc(self, c: list[Loc]) -> Loc:
        return c[0]

    def place(self, c: list[Any]) -> Loc:
        first, second = (_string(t) if t else None for t in c)
        assert first is not None  # the grammar's optional part is the second
        return Loc(name=first) if second is None else Loc(first, second)

    def fused_place(self, c: list[Any]) -> Loc:
        return FusedLoc(locs=tuple(p for p in c if p is not None))

    def pass_place(self, c: list[Any]) -> Loc:
        return PassLoc(name=_string(c[0]), origin=c[1])

    def return_(self, c: list[Any]) -> list[Token]:
        return [t for t in c if t is not None]


setattr(_Build, "return", _Build.return_)  # the rule's name is a Python keyword


def _flatten(payload: Any, token: Token) -> tuple[list[str], tuple[int, ...]]:
    """Nested arrays as element texts and a shape."""
    if isinstance(payload, _Number):
        return [payload.text], ()
    parts = [_flatten(x, token) for x in payload.items]
    if len({shape for _, shape in parts}) > 1:
        raise ParseError("the constant's rows differ in length", where=_at(token))
    return [t for texts, _ in parts for t in texts], (len(parts), *(parts[0][1] if parts else ()))


def _string(token: Token, start: int = 0) -> str:
    """What a quoted text says, from a position in its token on."""
    try:
        text = json.loads(token[start:])
        text.encode()  # half of a surrogate pair is no character
    except ValueError as error:
        raise ParseError(f"{token} is not a text: {error}", where=_at(token), hint="escape as JSON does") from None
    return text


def _unquote(token: Token) -> str:
    """The name in %name, @name, %"name" or @"name"."""
    return _string(token, 1) if token[1] == '"' else str(token)[1:]


def _key(token: Token) -> str:
    """What a value is found by: %x and %"x" are the same, %0 has no name and is not %"0"."""
    return str(token) if token[1:].isdigit() else f"={_unquote(token)}"


def _integer(token: Token) -> int:
    try:
        return int(token)
    except ValueError:  # Python's limit for the digits of a number
        raise ParseError(f"a number of {len(token)} digits", where=_at(token), hint="sizes are of 64 bits") from None


def _size(value: Any, token: Token | None = None) -> Dim:
    """A value that has to be a size or an expression of sizes."""
    if not fits(value, "Dim"):
        raise ParseError(f"{value!r} is not a size", where=_at(token) if token else None,
                         hint="sizes are whole numbers, declared names, and + - * of them")
    return value


def _at(token: Token) -> str:
    return f"line {token.line}, column {token.column}"
