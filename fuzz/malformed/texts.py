"""Changes to IR text: characters, tokens, lines, and what blind draws seldom make. `mutate(text, draw, others)`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from effcc.fuzz.malformed.octets import NUMBERS

TOKEN = re.compile(r'%?"(?:[^"\\\n]|\\.)*"|%[\w.]+|@[\w.]+|\w+(?:\.\w+)?|->|\.\.|\S')
ODD = (
    "%0", "%x", "@f", "nan", "inf", "none", "true", "f32", "i64[]", "f32[0]", "-", "->", "{", "}", "(", ")", "<", ">",
    '"', '"\\q"', '"\\ud800"', '"\\u0000"', "splat(0)", 'blob("sha256:00")', "graph", "return", "%\"\\n\"", "`N`", "#",
    "1e999", "-1", "0.5", "9" * 30, "9" * 5000, "f32[9223372036854775807]", "f32[-1]", "f32[N]", "sequence<f32[]>",
    "floordiv(1, 0)", "mod(N, 0)", "@block_csr(block=(0, 0), kept=5)", "@int4(group=0)", "\x00", "\u2028", "\ud7ff",
)  # fmt: skip
DEEP = 3000

Change = Callable[[Random, str, Sequence[str]], str]
CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__] = function
    return function


def mutate(text: str, draw: Random, others: Sequence[str]) -> tuple[str, list[str]]:
    """A changed text, and which changes were made."""
    done = []
    for _ in range(draw.choice((1, 1, 1, 2, 3, 5))):
        name = draw.choice(tuple(CHANGES))
        text = CHANGES[name](draw, text, others)
        done.append(name)
    return text, done


@change
def character(draw: Random, text: str, others: Sequence[str]) -> str:
    at = draw.randint(0, len(text))
    drawn = draw.choice("{}()[]<>%@\"'\\=,.:-+*# \n\t09azN_`é\x00\x7f")
    return text[:at] + draw.choice(("", drawn)) + text[at + draw.choice((0, 1)) :]


@change
def cut(draw: Random, text: str, others: Sequence[str]) -> str:
    return text[: draw.randint(0, len(text))]


@change
def token(draw: Random, text: str, others: Sequence[str]) -> str:
    """A token is left out, doubled, or becomes another: of this text, of another one, or an odd one."""
    places = [m.span() for m in TOKEN.finditer(text)]
    if not places:
        return text
    start, end = draw.choice(places)
    source = draw.choice((text, draw.choice(others)))
    new = draw.choice(("", text[start:end] * 2, draw.choice(ODD), draw.choice(TOKEN.findall(source) or [""])))
    return text[:start] + new + text[end:]


@change
def number(draw: Random, text: str, others: Sequence[str]) -> str:
    places = [m.span() for m in re.finditer(r"\d+", text)]
    if not places:
        return text
    start, end = draw.choice(places)
    return text[:start] + str(draw.choice(NUMBERS)) + text[end:]


@change
def lines(draw: Random, text: str, others: Sequence[str]) -> str:
    """Lines are left out, doubled, moved, or taken from another text."""
    rows = text.split("\n")
    at = draw.randrange(len(rows))
    match draw.randrange(4):
        case 0:
            del rows[at]
        case 1:
            rows.insert(draw.randint(0, len(rows)), rows[at])
        case 2:
            rows.insert(at, draw.choice(draw.choice(others).split("\n")))
        case _:
            draw.shuffle(rows)
    return "\n".join(rows)


@change
def attribute(draw: Random, text: str, others: Sequence[str]) -> str:
    """The value of an attribute becomes that of another, or is gone with its name."""
    found = re.compile(r"(\w+)=(\([^()]*\)|[^,}(){]+)")
    places = list(found.finditer(text))
    given = [m.group(2) for other in (text, draw.choice(others)) for m in found.finditer(other)]
    if not places:
        return text
    m = draw.choice(places)
    return text[: m.start(2)] + draw.choice((*given, *ODD)) + text[m.end(2) :]


@change
def type_(draw: Random, text: str, others: Sequence[str]) -> str:
    """A type becomes another, of this text or another one, everywhere or in one place."""
    found = re.compile(r"\b[a-z]+\d*(?:e\d+m\d+(?:fnuz)?)?\[[^\]\n]*\]")
    here, there = found.findall(text), found.findall(draw.choice(others))
    if not here:
        return text
    return text.replace(draw.choice(here), draw.choice(here + there), draw.choice((1, -1)))


@change
def deep(draw: Random, text: str, others: Sequence[str]) -> str:
    """Brackets inside of brackets inside of brackets, or a sum without end."""
    places = [m.span() for m in re.finditer(r"\d+", text)]
    if not places:
        return text
    start, end = draw.choice(places)
    count = draw.choice((10, DEEP))
    old = text[start:end]
    new = draw.choice(
        ("(" * count + old + ")" * count, "[" * count + old + "]" * count, "-" * count + old, f"{old} + " * count + old,
         "sequence<" * count + "f32[]" + ">" * count)
    )  # fmt: skip
    return text[:start] + new + text[end:]
