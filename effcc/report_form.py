"""The form of a saved report: what `effcc.report.facts` makes, checked before anything trusts it.

A form is a type; a predicate; a dict of forms by key ("key?" may be absent, the key `str` stands for any); a list of
one form for all elements, or of several for so many; or a tuple of forms of which one fits.
"""

from __future__ import annotations

from typing import Any

NUMBER = (int, float)


def _positive(value: Any) -> bool:
    return _is(value, NUMBER) and value > 0


def _contents(value: Any) -> bool:
    """A number, or rows of rows of numbers of equal lengths."""
    if not isinstance(value, list):
        return _is(value, (bool, int, float))
    sizes = {len(x) if isinstance(x, list) else None for x in value}
    return len(sizes) <= 1 and all(map(_contents, value))


_PORT = {"name": str, "type": str}
_WORK = {"flops": NUMBER, "bytes": NUMBER}
_RESOURCES = {"registers": int, "stack": int, "spills": int, "shared": int, "tensor_core": ({str: int}, None)}
_BUFFER = {"name": str, "offset": int, "bytes": int, "first": int, "last": int}
_TRIAL = {"value": NUMBER, "search": NUMBER, "accept": (*NUMBER, None), "kept": bool, "time": _positive}

FORM = {
    "name": str,
    "target": str,
    "sizes": {str: int},
    "fixed": {str: _contents},
    "inputs": [_PORT],
    "outputs": [_PORT],
    "ops": {"before": int, "after": int},
    "passes": [{"pass": str, "seconds": NUMBER, "before": int, "after": int, "rules": {str: int}}],
    "log": [{"number": int, "pass": str, "rule": str, "at": str}],
    "refusals": [{"pass": str, "rule": str, "at": str, "reason": str}],
    "notes": [{"pass": str, "at": str}],
    "seconds": {str: NUMBER},
    "templates": {str: {"launches": int, "kernels": int, **_WORK}},
    "kernels": [
        {"label": str, "at": str, "template": str, "symbol": str, "tiles": int, "on?": {str: _RESOURCES}, **_WORK}
    ],
    **_WORK,
    "memory": {"peak": int, "lower_bound": int, "unshared": int, "constants": int, "buffers": [_BUFFER]},
    "schedule": (
        None,
        {"used": str, "reason": str, "tasks": int, "joins": int, "edges": int, "arena": int,
         "arena_under_barriers": int, "milliseconds": (None, {str: NUMBER})},
    ),
    "search": (
        None,
        {"budget": str, "option": str, "samples": [int, int], "trials": [_TRIAL], "chosen": (*NUMBER, None),
         "unmodified": NUMBER, "quality": NUMBER, "stopped": str, "slower": bool,
         "milliseconds": {"chosen": _positive, "unmodified": _positive}},
    ),
}  # fmt: skip


def misfit(value: Any, form: Any) -> str | None:
    """The first part of a JSON value that is not of its form, as a path; None where all of it is.

    >>> misfit({"sizes": {"N": "8"}}, {"sizes": {str: int}})
    'sizes.N'
    """
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return "object"
        parts = [(key, x, form[str]) for key, x in value.items()] if str in form else []
        for key, inner in form.items():
            if key is str:
                continue
            name = key.removesuffix("?")
            if name in value:
                parts.append((name, value[name], inner))
            elif name == key:
                return name
    elif isinstance(form, list):
        if not isinstance(value, list) or (len(form) > 1 and len(value) != len(form)):
            return "list"
        parts = [(str(k), x, form[k if len(form) > 1 else 0]) for k, x in enumerate(value)]
    else:
        return None if _is(value, form) else "value"
    for name, x, inner in parts:
        if (found := misfit(x, inner)) is not None:
            return name if found in ("object", "list", "value") else f"{name}.{found}"
    return None


def _is(value: Any, form: Any) -> bool:
    """Whether a value fits; a bool is no number."""
    if form is None:
        return value is None
    if isinstance(form, tuple):
        return any(_is(value, one) for one in form)
    if isinstance(form, (dict, list)):
        return misfit(value, form) is None
    if isinstance(form, type):
        return isinstance(value, form) and (form is bool or not isinstance(value, bool))
    return form(value)
