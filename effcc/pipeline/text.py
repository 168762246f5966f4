"""Pipelines as text: `simplify,tome:r=13:inflect=-1,fuse:max-ops=8`.

Commas between passes, colons between options, lists as 8+8+4; nothing that a shell would touch. An option's type is
that of the pass's field; a bare option is true.

>>> [str(p) for p in parse_pipeline("fold:max-growth=4096,dce")]
['fold:max-growth=4096', 'dce']
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from effcc.errors import ParseError
from effcc.pipeline.passes import Pass, find_pass


def parse_pipeline(text: str) -> tuple[Pass, ...]:
    """The passes that a text names."""
    return tuple(parse_pass(part.strip()) for part in text.split(",")) if text.strip() else ()


def print_pipeline(passes: Iterable[Pass]) -> str:
    """The text of passes; `parse_pipeline` reads it back."""
    return ",".join(map(print_pass, passes))


def parse_pass(text: str) -> Pass:
    """One pass with its options: `tome:r=13`."""
    name, *options = text.split(":")
    if not name:
        raise ParseError(f"a pass without a name in {text!r}", hint="write name or name:option=value")
    cls = find_pass(name)
    hints = _hints(cls)
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for option in options:
        key, equals, value = option.partition("=")
        key = key.replace("_", "-")
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = (f"did you mean {near[0]!r}? " if near else "") + f"{name} takes {', '.join(fields) or 'no options'}"
            raise ParseError(f"{name} has no option {key!r}", hint=hint)
        field = fields[key]
        if field.name in values:
            raise ParseError(f"{name}: option {key!r} is given twice")
        values[field.name] = _parse_value(value if equals else "true", hints[field.name], f"{name}:{key}")
    missing = [k for k, f in fields.items() if f.name not in values and _required(f)]
    if missing:
        raise ParseError(f"{name} needs {', '.join(missing)}", hint=f"write {name}:{missing[0]}=...")
    try:
        return cls(**values)
    except ValueError as error:
        raise ParseError(f"{name}: {error}") from None


def with_options(p: Pass, options: Iterable[str]) -> Pass:
    """The pass with some of its options changed, each given as `option=value`."""
    hints, changes = _hints(type(p)), {}
    for option in options:
        key, _, value = option.partition("=")
        name = key.strip().replace("-", "_")
        if name not in {f.name for f in dataclasses.fields(p)}:
            raise ParseError(f"{p.name} has no option {key!r}")
        changes[name] = _parse_value(value.strip(), hints[name], f"{p.name}:{key}")
    return dataclasses.replace(p, **changes)


@cache
def _hints(cls: type[Pass]) -> dict[str, Any]:
    return get_type_hints(cls)


def print_pass(p: Pass) -> str:
    """The name, and the options that differ from their defaults."""
    changed = [(f.name, getattr(p, f.name)) for f in dataclasses.fields(p) if getattr(p, f.name) != _default(f)]
    return ":".join([p.name, *(f"{name.replace('_', '-')}={_print_value(value)}" for name, value in changed)])


def _required(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _parse_value(text: str, hint: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if text == "none" and type(None) in get_args(hint):
            return None
        hint = next(a for a in get_args(hint) if a is not type(None))
        origin = get_origin(hint)
    if origin is tuple:
        return tuple(_parse_value(part, get_args(hint)[0], where) for part in text.split("+")) if text else ()
    if hint is bool:
        if text not in ("true", "false"):
            raise ParseError(f"{text!r} is neither true nor false", where=where)
        return text == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            wanted = "an integer" if hint is int else "a number"
            raise ParseError(f"{text!r} is not {wanted}", where=where) from None
    return text


def _print_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "+".join(map(_print_value, value))
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)
