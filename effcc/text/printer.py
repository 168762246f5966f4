"""Graph -> text. Result types are always printed; attributes that have their default are not."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from effcc.errors import EffccError
from effcc.ir.blob import Blob
from effcc.ir.dims import Atom, Expr, Extremum, FloorDiv, Mod, Symbol, symbols
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.location import UNKNOWN, FusedLoc, Loc, PassLoc
from effcc.ir.op import Op
from effcc.ir.types import DTYPES, DType, Encoding, Optional, Sequence, Tensor, Type, type_symbols

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
VALUE_NAME = re.compile(r"[A-Za-z0-9_.]+\Z")
RESERVED = frozenset(DTYPES) | set("inf nan true false none symint rng sequence optional graph blob".split())
INLINE_ELEMENTS = 32
SPLAT_ELEMENTS = 4
"""Constants of more elements than the first are printed by their hash, of more than the second as a splat where all
elements are one."""


def print_graph(graph: Graph, locations: bool = True) -> str:
    """The text of a graph; `locations=False` leaves out where its ops came from."""
    return _Printer(graph, locations).graph(graph, "")


def blobs(graph: Graph) -> dict[str, Blob]:
    """The constants that the text of a graph names by hash: what `parse` needs beside it."""
    found = (v for node in graph.walk() for v in node.op.attrs.values() if isinstance(v, Blob))
    return {f"sha256:{b.sha256}": b for b in found if inline_text(b) is None}


class _Printer:
    def __init__(self, graph: Graph, locations: bool):
        self.locations = locations
        self.symbols = _symbol_names(graph)

    # -- graphs ------------------------------------------------------------------------------------------------------
    def graph(self, g: Graph, indent: str) -> str:
        names = _value_names(g)
        params = ", ".join(f"{names[v]}: {self.type(v.type)}" for v in g.inputs)
        header = "" if indent else self.declarations()
        name = f" @{_name(g.name, VALUE_NAME)}" if g.name else ""
        lines = [f"graph{name}{header}({params}) -> {self.results(g, names)} {{"]
        lines += [f"{indent}  {self.node(n, names, indent + '  ')}" for n in g.nodes]
        returned = ", ".join(names[v] for v in g.results)
        return "\n".join([*lines, f"{indent}  return {returned}".rstrip(), f"{indent}}}"])

    def declarations(self) -> str:
        def one(s: Symbol, name: str) -> str:
            return name if (s.lo, s.hi) == (0, None) else f"{name} in {s.lo}..{'' if s.hi is None else s.hi}"

        shown = [one(s, name) for s, name in self.symbols.items()]
        return f"<{', '.join(shown)}>" if shown else ""

    def results(self, g: Graph, names: dict[Value, str]) -> str:
        alias = dict(g.aliases)
        shown = [self.type(v.type) + (f" aliases {names[g.inputs[alias[i]]]}" if i in alias else "")
                 for i, v in enumerate(g.results)]
        return shown[0] if len(shown) == 1 else f"({', '.join(shown)})"

    def node(self, n: Node, names: dict[Value, str], indent: str) -> str:
        left = ", ".join(f"{names[v]}: {self.type(v.type)}" for v in n.results)
        text = (f"{left} = " if left else "") + self.applied(n, names, indent)
        if self.locations and n.loc != UNKNOWN:
            text += f"  loc({_place(n.loc)})"
        return text

    def applied(self, n: Node, names: dict[Value, str], indent: str) -> str:
        attrs = [(f, getattr(n.op, f.name)) for f in n.op.attributes()]
        payload = ""
        if not n.operands and attrs and isinstance(attrs[0][1], Blob) and attrs[0][1].type == n.results[0].type:
            payload, attrs = f" {inline_text(attrs[0][1]) or _blob(attrs[0][1])}", attrs[1:]
        shown = [f"{f.name}={self.value(v, indent)}" for f, v in attrs if not _is_default(f, v)]
        operands = "" if payload else f"({', '.join(names[v] for v in n.operands)})"
        return f"{n.op.name}{operands}{payload}" + (f" {{{', '.join(shown)}}}" if shown else "")

    # -- attribute values --------------------------------------------------------------------------------------------
    def value(self, v: Any, indent: str) -> str:
        match v:
            case None:
                return "none"
            case bool():
                return "true" if v else "false"
            case int():
                return str(v)
            case float():
                return _float(v)
            case str():
                return json.dumps(v, ensure_ascii=False)
            case tuple():
                inner = ", ".join(self.value(x, indent) for x in v)
                return f"({inner},)" if len(v) == 1 else f"({inner})"
            case Expr() | Symbol():
                return self.dim(v)
            case DType():
                return v.name
            case Type():
                return self.type(v)
            case Encoding():
                return self.encoding(v)
            case Blob():
                return _blob(v)
            case Graph():
                return self.graph(v, indent)
        raise EffccError(f"an attribute of type {type(v).__name__} has no text form: {v!r}",
                         hint="attributes are ints, floats, strings, bools, tuples, dims, types, encodings, graphs")

    def type(self, t: Type) -> str:
        match t:
            case Tensor(dtype, shape, encoding):
                suffix = self.encoding(encoding) if encoding else ""
                return f"{dtype.name}[{','.join(map(self.dim, shape))}]{suffix}"
            case Sequence(element):
                return f"sequence<{self.type(element)}>"
            case Optional(element):
                return f"optional<{self.type(element)}>"
        return str(t)

    def encoding(self, e: Encoding) -> str:
        inner = ", ".join(f"{k}={self.value(v, '')}" for k, v in e.params)
        return f"@{_name(e.name, VALUE_NAME)}" + (f"({inner})" if inner else "")

    def dim(self, d: Any) -> str:
        if isinstance(d, int):
            return str(d)
        text = ""
        for monomial, c in (d.expr if isinstance(d, Atom) else d).terms:
            factors = [self.atom(a) for a in monomial]
            if abs(c) != 1 or not factors:
                factors.insert(0, str(abs(c)))
            text += ("-" if c < 0 else "+" if text else "") + "*".join(factors)
        return text

    def atom(self, a: Atom) -> str:
        match a:
            case Symbol():
                return self.symbols[a]
            case FloorDiv(x, y):
                return f"floordiv({self.dim(x)},{self.dim(y)})"
            case Mod(x, y):
                return f"mod({self.dim(x)},{self.dim(y)})"
            case Extremum(which, args):
                return f"{which}({','.join(map(self.dim, args))})"
        raise TypeError(a)


# -- names -----------------------------------------------------------------------------------------
def _name(text: str, plain: re.Pattern[str]) -> str:
    return text if plain.match(text) else json.dumps(text, ensure_ascii=False)


def _value_names(g: Graph) -> dict[Value, str]:
    """A distinct %name for each value; values without a name are numbered."""
    used: set[str] = set()
    names: dict[Value, str] = {}
    unnamed = duplicate = 0
    reserved = {v.name for v in g.values}
    for v in g.values:
        if not v.name:
            name, unnamed = str(unnamed), unnamed + 1
        else:
            base = name = _name(v.name, VALUE_NAME) if not v.name.isdigit() else f'"{v.name}"'
            while name in used:
                duplicate += 1
                name = base if f"{v.name}.{duplicate}" in reserved else _name(f"{v.name}.{duplicate}", VALUE_NAME)
        used.add(name)
        names[v] = f"%{name}"
    return names


def _symbol_names(g: Graph) -> dict[Symbol, str]:
    """How each symbol of a graph, its attributes and its nested graphs is written, in order of name."""
    found: set[Symbol] = set()
    graphs = [g, *(nested for node in g.walk() for nested in node.op.graphs().values())]
    for graph in graphs:
        for v in graph.values:
            found |= type_symbols(v.type)
        for node in graph.nodes:
            found |= attribute_symbols(node.op)
    names: dict[Symbol, str] = {}
    for s in sorted(found, key=lambda s: (s.name, s.lo, s.hi or 0)):
        name = s.name if IDENTIFIER.match(s.name) and s.name not in RESERVED else f"`{s.name.replace('`', '_')}`"
        names[s] = name if name not in names.values() else f"`{s.name} {s.lo}..{s.hi}`"
    return names


def attribute_symbols(op: Op) -> set[Symbol]:
    """The symbols in an op's attributes, nested graphs apart."""
    def walk(value: Any) -> Iterator[Symbol]:
        match value:
            case Expr() | Symbol():
                yield from symbols(value)
            case tuple():
                for v in value:
                    yield from walk(v)
            case Type():
                yield from type_symbols(value)

    return {s for v in op.attrs.values() for s in walk(v)}


def _is_default(f: dataclasses.Field[Any], v: Any) -> bool:
    return f.default is not dataclasses.MISSING and type(f.default) is type(v) and f.default == v


# -- numbers and constants -------------------------------------------------------------------------
def _float(x: float) -> str:
    if math.isnan(x):
        return "nan"
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    return repr(float(x))


def _blob(b: Blob) -> str:
    return f'blob("sha256:{b.sha256}")'


def inline_text(b: Blob) -> str | None:
    """A constant's elements, where they are few (or all the same) and the text brings back every bit; else None."""
    import numpy as np

    if not b.at_hand:
        return None
    array = b.array
    if array.size > SPLAT_ELEMENTS:
        first = array.reshape(-1)[:1]
        same = first.tobytes() * array.size == array.tobytes() if array.size < 1 << 24 else False
        if same and _survives(first, b.type.dtype):
            return f"splat({_element(first[0])})"
    if array.size > INLINE_ELEMENTS or not _survives(array, b.type.dtype):
        return None
    return _nested(np.asarray(array))


def _survives(array: Any, dtype: DType) -> bool:
    """Whether the elements come back bit for bit (a NaN with a payload does not)."""
    return elements([_element(x) for x in array.reshape(-1)], array.shape, array.dtype).tobytes() == array.tobytes()


def elements(texts: list[str], shape: tuple[int, ...], dtype: Any) -> Any:
    """The array that printed elements describe."""
    import numpy as np

    def number(text: str) -> Any:
        if text in ("true", "false"):
            return text == "true"
        return int(text) if text.lstrip("-").isdigit() else float(text)

    return np.array([number(t) for t in texts], dtype=dtype).reshape(shape)


def _nested(array: Any) -> str:
    if array.ndim == 0:
        return _element(array[()])
    return f"[{', '.join(_nested(a) for a in array)}]"


def _element(x: Any) -> str:
    """One element: the shortest text that reads back as the same number of its dtype."""
    import numpy as np

    if isinstance(x, (bool, np.bool_)):
        return "true" if x else "false"
    if isinstance(x, (int, np.integer)) or np.asarray(x).dtype.name.startswith(("int", "uint")):
        return str(int(x))
    if not math.isfinite(x):
        return _float(float(x))
    text = str(x) if type(x) in (np.float32, np.float16) else repr(float(x))
    return text if any(c in text for c in ".e") else f"{text}.0"


# -- locations -------------------------------------------------------------------------------------
def _place(loc: Loc) -> str:
    match loc:
        case FusedLoc():
            return f"fused[{', '.join(map(_place, loc.locs))}]"
        case PassLoc():
            return f"from({json.dumps(loc.name)}, {_place(loc.origin)})"
    quoted = [json.dumps(part, ensure_ascii=False) for part in (loc.source, loc.name)]
    return quoted[1] if not loc.source else ":".join(quoted)
