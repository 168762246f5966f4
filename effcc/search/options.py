"""Options to be searched: `tome:r=?` names one, and the pass says which values there are.

    class Tome(Pass):
        searchable = {"r": Range(0, None)}        # from the gentlest on, where the pass changes nothing
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from effcc.errors import InputError
from effcc.pipeline import Pass, Range, find_pass

_HOLE = re.compile(r"(?:^|,)\s*([\w-]+)((?::[^,:]*)*?):([\w-]+)=\?(?=[:,]|\s*$)")


@dataclass(frozen=True)
class Hole:
    """An option without a value: of which pass, in which of the given texts (a category, or "passes")."""

    place: str
    text: str
    pass_name: str
    option: str
    range: Range

    def filled(self, value: float) -> str:
        """The text with a value."""
        return self.text.replace(f"{self.option}=?", f"{self.option}={self.range.shown(value)}")

    def shown(self, value: float) -> str:
        return f"{self.pass_name}:{self.option}={self.range.shown(value)}"


def find_hole(passes: Any, extra: Mapping[str, Pass | str]) -> Hole | None:
    """The option that is to be searched; InputError where there are several, or its pass does not offer it."""
    texts = {**extra, "passes": passes}
    found = [(place, text, m) for place, text in texts.items() if isinstance(text, str) for m in _HOLE.finditer(text)]
    marks = sum(text.count("=?") for text in texts.values() if isinstance(text, str))
    if not marks:
        return None
    if marks > 1 or len(found) != 1:
        hint = "search one, fix it, then search the next"
        raise InputError("one option of one pass can be searched at a time", where="budget", hint=hint)
    place, text, match = found[0]
    name, option = match[1], match[3]
    offered = find_pass(name).searchable
    key = option.replace("-", "_")
    if key not in offered:
        told = f"it offers {', '.join(offered)}" if offered else "none of its options can be searched"
        raise InputError(f"{name} does not offer {option!r} to be searched", where=text, hint=told)
    return Hole(place, text, name, option, offered[key])
