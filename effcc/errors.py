"""One family of errors for everything that a user can mend: what went wrong, where, and what to do about it.

The command prints `error: <message>` and exits with status 2; a traceback means a bug in effcc itself.
"""

from __future__ import annotations

import re


class EffccError(Exception):
    """A mistake in the input (model, text, artifact, option), with one line that says what, where, and how to mend
    it."""

    def __init__(self, message: str, *, where: object = None, hint: str | None = None):
        self.message, self.where, self.hint = message, where, hint
        text = message if where is None or str(where) == "" else f"{where}: {message}"
        super().__init__(one_line(text if hint is None else f"{text}; {hint}"))


LONGEST = 800


def one_line(text: str) -> str:
    """A text that quotes whatever a file holds, as one line of moderate length that a terminal can show.

    >>> one_line("no op \\x1b[31m, \\n in 'a'")
    "no op \\\\x1b[31m, in 'a'"
    """
    if not text.isprintable():
        words = re.sub(r"\s+", " ", text)
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 300]} … {text[-290:]}"


class TypeRuleError(EffccError):
    """Operands or attributes that an op's type rule refuses."""


class VerifyError(EffccError):
    """A graph that breaks an invariant of the IR."""


class ParseError(EffccError):
    """Text, a model file or an artifact that does not parse."""


class UnsupportedError(EffccError):
    """Something well formed that effcc cannot compile (yet), named."""


class NeedsValue(UnsupportedError):
    """The graph's structure depends on run-time data: import it again with these inputs' values, or shapes, fixed.

    inputs: those whose values are needed.   shapes: those whose shapes are.
    inside: whether the data arise inside of a loop, so that no input can settle them (unrolling may).
    """

    def __init__(
        self,
        message: str,
        *,
        where: object = None,
        inputs: tuple[str, ...] = (),
        shapes: tuple[str, ...] = (),
        inside: bool = False,
    ):
        self.inputs, self.shapes, self.inside = inputs, shapes, inside
        wanted = ", ".join([f"the value of {i!r}" for i in inputs] + [f"the shape of {s!r}" for s in shapes])
        super().__init__(message, where=where, hint=f"specialise on {wanted}" if wanted else None)


class InputError(EffccError):
    """Run-time inputs that do not fit the program's signature."""
