"""Changes to artifacts: to their bytes, the zip's structure, the manifest, single entries. `mutate(data, draw)`.

What is changed inside of an entry gets the right hash in most cases, else nothing behind the check of hashes would ever
be reached.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

from effcc.artifact import ALIGNMENT, CONSTANTS, GRAPH, MANIFEST, REPORT, signed
from effcc.fuzz.malformed import octets, texts
from effcc.fuzz.malformed.octets import NUMBERS

ODD_ENTRIES = ("../outside/escaped", "/tmp/escaped", "code/../../escaped", "a\\b", "", "code/", "C:x", "code/k.o\n")
ODD_VALUES: tuple[Any, ...] = (None, True, "", "x", "../x", [], {}, [[]], 0.5, float("nan"), 1e308, *NUMBERS)

Entries = dict[str, bytes]
Change = Callable[[Random, Entries], None]
CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__] = function
    return function


def mutate(data: bytes, draw: Random) -> tuple[bytes, list[str]]:
    """A changed artifact, and which changes were made."""
    if draw.random() < 0.35:
        return octets.mutate(data, draw), ["octets"]
    if draw.random() < 0.15:
        return STRUCTURES[name := draw.choice(tuple(STRUCTURES))](draw, unpack(data)), [name]
    entries, done = unpack(data), []
    for _ in range(draw.choice((1, 1, 2, 3))):
        name = draw.choice(tuple(CHANGES))
        CHANGES[name](draw, entries)
        done.append(name)
    if MANIFEST in entries and draw.random() < 0.85:
        sign(entries)
    return pack(entries), done


def unpack(data: bytes) -> Entries:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def pack(entries: Entries, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip as `effcc.artifact.write` makes it, the weights aligned."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            if name == CONSTANTS:
                padding = -(file.tell() + 34 + len(CONSTANTS)) % ALIGNMENT
                info.extra = struct.pack("<HH", 0xD935, padding) + bytes(padding)
            archive.writestr(info, content)
    return file.getvalue()


def rehash(entries: Entries, name: str) -> None:
    """Lets the manifest tell the truth about an entry."""
    try:
        manifest = json.loads(entries[MANIFEST])
        content = entries[name]
        manifest["entries"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    except (ValueError, KeyError, TypeError, RecursionError):  # another change broke it
        return
    entries[MANIFEST] = json.dumps(manifest, separators=(",", ":")).encode()


def sign(entries: Entries) -> None:
    """Puts the manifest's own hash right."""
    try:
        manifest = json.loads(entries[MANIFEST])
        manifest.pop("sha256", None)
        entries[MANIFEST] = signed(manifest)
    except (ValueError, AttributeError, TypeError, RecursionError):  # it is no JSON, or no object
        return


# -- JSON --
def shaken(draw: Random, value: Any) -> Any:
    """A JSON value with one change, somewhere inside of it."""
    path: list[tuple[Any, Any]] = []
    inner = value
    while isinstance(inner, (dict, list)) and inner and (not path or draw.random() < 0.85):
        key = draw.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
        path.append((inner, key))
        inner = inner[key]
    if not path:
        return draw.choice(ODD_VALUES)
    owner, key = path[-1]
    match draw.randrange(7):
        case 0:
            del owner[key]
        case 1:
            owner[key] = inner + draw.choice((-1, 1, 64)) if type(inner) is int else draw.choice(ODD_VALUES)
        case 2:
            other, at = draw.choice(path)
            owner[key] = other[at] if other is not owner else draw.choice(ODD_VALUES)
            if isinstance(owner[key], (dict, list)):
                owner[key] = json.loads(json.dumps(owner[key])) if other is owner else draw.choice(ODD_VALUES)
        case 3 if isinstance(owner, list):
            owner.insert(key, inner if not isinstance(inner, (dict, list)) else json.loads(json.dumps(inner)))
        case 4 if isinstance(owner, list):
            draw.shuffle(owner)
        case 5 if isinstance(owner, dict):
            owner[draw.choice(("", "x", "format", key + " "))] = owner.pop(key)
        case _:
            owner[key] = draw.choice(ODD_VALUES)
    return value


def _json(draw: Random, entries: Entries, name: str, inside: str | None = None) -> None:
    try:
        value = json.loads(entries[name])
        if inside is None:
            value = shaken(draw, value)
        else:
            value[inside] = shaken(draw, value[inside])
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    entries[name] = json.dumps(value).encode()
    if name != MANIFEST:
        rehash(entries, name)


@change
def manifest(draw: Random, entries: Entries) -> None:
    _json(draw, entries, MANIFEST)


@change
def program(draw: Random, entries: Entries) -> None:
    """The launch program: its buffers, launches, sizes, expressions."""
    for _ in range(draw.choice((1, 2, 5))):
        _json(draw, entries, MANIFEST, "program")


@change
def weights(draw: Random, entries: Entries) -> None:
    _json(draw, entries, MANIFEST, "constants")


@change
def report(draw: Random, entries: Entries) -> None:
    _json(draw, entries, REPORT)


@change
def graph(draw: Random, entries: Entries) -> None:
    if GRAPH in entries:
        text, _ = texts.mutate(entries[GRAPH].decode(errors="replace"), draw, [entries[GRAPH].decode(errors="replace")])
        entries[GRAPH] = text.encode(errors="replace")
        rehash(entries, GRAPH)


@change
def deep(draw: Random, entries: Entries) -> None:
    """JSON too deep for a recursive reader, or numbers too long for one."""
    name = draw.choice((MANIFEST, REPORT))
    depth = draw.choice((100, 900, 5000, 200_000))
    inner = draw.choice((b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"9" * depth))
    key = draw.choice((b'"program":', b'"options":', b'"kernels":', b'"inputs":'))
    entries[name] = entries.get(name, b"").replace(key, key + inner + b',"was":', 1)
    if name != MANIFEST:
        rehash(entries, name)


@change
def code(draw: Random, entries: Entries) -> None:
    """An object file is empty, cut off, another one or gone; its hash is right."""
    objects = [name for name in entries if name.startswith("code/")]
    if not objects:
        return
    name = draw.choice(objects)
    content = entries[name]
    match draw.randrange(4):
        case 0:
            del entries[name]
            return
        case 1:
            entries[name] = content[: draw.choice((0, 1, 64, len(content) // 2, len(content) - 1))]
        case 2:
            entries[name] = entries[draw.choice(objects)]
        case _:
            entries[name] = draw.choice((b"", b"\x7fELF", b"not an object", bytes(1000)))
    rehash(entries, name)


@change
def content(draw: Random, entries: Entries) -> None:
    """An entry's bytes, with the hash of before."""
    name = draw.choice(sorted(entries))
    entries[name] = octets.mutate(entries[name], draw)


@change
def entry(draw: Random, entries: Entries) -> None:
    """An entry more, less, or of another name."""
    name = draw.choice(sorted(entries))
    odd = draw.choice((*ODD_ENTRIES, "code/more.o", "readme.txt"))
    match draw.randrange(3):
        case 0:
            del entries[name]
        case 1:
            entries[odd] = entries.pop(name)
        case _:
            entries[odd] = entries[name]
            rehash(entries, odd)


# -- the zip itself --
STRUCTURES: dict[str, Callable[[Random, Entries], bytes]] = {}


def structure(function: Callable[[Random, Entries], bytes]) -> Callable[[Random, Entries], bytes]:
    STRUCTURES[function.__name__] = function
    return function


@structure
def compressed(draw: Random, entries: Entries) -> bytes:
    """Compressed entries, one of them much larger than the file."""
    name = draw.choice(sorted(entries))
    entries[name] = bytes(draw.choice((1000, 100_000_000)))
    return pack(entries, draw.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)))


@structure
def twice(draw: Random, entries: Entries) -> bytes:
    """Two entries of one name."""
    name = draw.choice(sorted(entries))
    file = io.BytesIO(pack(entries))
    with zipfile.ZipFile(file, "a") as archive:
        archive.filelist.append(archive.filelist[-1])
        archive.filelist[-1] = archive.getinfo(name)
        archive._didModify = True  # type: ignore[attr-defined]
    return file.getvalue()


@structure
def sizes(draw: Random, entries: Entries) -> bytes:
    """A size, an offset or a flag in the zip's headers is another one."""
    data = bytearray(pack(entries))
    headers = {
        b"PK\1\2": (8, 10, 16, 20, 24, 28, 30, 32, 42),
        b"PK\3\4": (6, 8, 18, 22, 26, 28),
        b"PK\5\6": (8, 10, 12, 16),
    }
    magic, places = draw.choice(tuple(headers.items()))
    found = [at for at in range(len(data) - 46) if data[at : at + 4] == magic] or [data.rfind(magic)]
    at = draw.choice(found) + draw.choice(places)
    number = (draw.choice(NUMBERS) & 2**32 - 1).to_bytes(4, "little")[: draw.choice((2, 4))]
    data[at : at + len(number)] = number
    return bytes(data)


@structure
def surrounded(draw: Random, entries: Entries) -> bytes:
    """Bytes before or after the zip."""
    more = draw.randbytes(draw.choice((1, 64, 5000)))
    return draw.choice((more + pack(entries), pack(entries) + more))
