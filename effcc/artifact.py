"""The `.effcc` file: a compiled program with its weights, in one zip of stored entries.

    code/...         what the backend compiled: object files, cubins        checked on each load
    ...              texts: the IR, the pass log                            checked on each load
    constants.bin    the weights, each at a multiple of 64 bytes            mapped into memory; checked by `verify`
    manifest.json    format, versions, target, CPU features that the code needs, options, measured choices, the
                     backend's own program as JSON, the size and SHA-256 of all the rest, and its own SHA-256

Nothing is pickled or compressed, and no path in it is ever used as a path.  It holds native code all the same: like
any shared library, load only what you trust.

    write("mlp.effcc", backend="tvm", machine=machine, program={...}, blobs={"code/k.o": b"..."}, constants={"w": w})
    artifact = read("mlp.effcc")
    artifact.constants["w"]         # bytes in the file, mapped
"""

from __future__ import annotations

import hashlib
import importlib
import json
import mmap
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .errors import EffccError, ParseError, UnsupportedError
from .files import beside
from .ir.blob import Blob
from .ir.graph import Graph
from .ir.types import Tensor
from .machine import Machine, host
from .program import LoadedProgram, Program
from .report_form import FORM, misfit

FORMAT = 1
ALIGNMENT = 64
MANIFEST, CONSTANTS = "manifest.json", "constants.bin"
LIMIT = 256 << 20
"""Bytes that the manifest may have, and that all entries but the weights may have together."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_CHUNK = 1 << 24
_SIGNATURE = ',"sha256":"'
_RECOMPILE = "compile the model again"


@dataclass(frozen=True)
class Artifact:
    """What a file holds. `constants` are bytes in the file, mapped read-only; all else is in memory."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)
    blobs: Mapping[str, bytes] = field(repr=False)
    constants: Mapping[str, np.ndarray[Any, np.dtype[np.uint8]]] = field(repr=False)

    @property
    def backend(self) -> str:
        return self.manifest["backend"]

    @property
    def program(self) -> Any:
        """The backend's own JSON."""
        return self.manifest["program"]


def write(
    path: str | os.PathLike[str],
    *,
    backend: str,
    machine: Machine,
    program: Any,
    blobs: Mapping[str, bytes],
    constants: Mapping[str, np.ndarray] | None = None,
    versions: Mapping[str, str] | None = None,
    options: Any = None,
    choices: Any = None,
) -> None:
    """Writes an artifact: all of it, or, where the disk is full or the folder is not writable, nothing.

    `program`, `options` and `choices` (what was measured while compiling) are JSON; `blobs` are files by name, of which
    those under code/ are native code for `machine`. Equal arguments give equal files.
    """
    path = Path(path)
    constants = constants or {}
    for name in blobs:
        if not _NAME.fullmatch(name) or name in (MANIFEST, CONSTANTS):
            raise ValueError(f"{name!r} cannot be an entry's name")
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "backend": backend,
        "versions": dict(versions or {}),
        "target": str(machine),
        "architecture": machine.architecture,
        "platform": sys.platform,
        "features": sorted(machine.features),
        "options": options,
        "choices": choices,
        "program": program,
        "entries": {name: _entry(blob) for name, blob in sorted(blobs.items())},
        "constants": {},
    }
    with beside(path, "the artifact") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, blob in sorted(blobs.items()):
            archive.writestr(zipfile.ZipInfo(name), blob)
        _write_constants(archive, constants, manifest["constants"])
        archive.writestr(zipfile.ZipInfo(MANIFEST), signed(manifest))


def signed(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as JSON that ends in the hash of what stands before it: the launch program is in no other hash."""
    text = json.dumps(manifest, separators=(",", ":"), allow_nan=False)[:-1].encode()
    return text + f'{_SIGNATURE}{_digest([text])}"}}'.encode()


def read(path: str | os.PathLike[str], machine: Machine | None = None) -> Artifact:
    """An artifact whose structure and code are checked, for this machine.

    Raises EffccError, in one line, where the file is missing, damaged, not an artifact, or needs another machine.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            places = _places(file, path)
            text = _content(file, places, MANIFEST, path)
            if zlib.crc32(text) != zipfile.ZipFile(file).getinfo(MANIFEST).CRC:  # bytes changed, whatever they say now
                raise _damaged(path, MANIFEST)
            manifest = _manifest(text, path)
            _check_machine(manifest, machine or host(), path)
            names = set(manifest["entries"])
            if names | {MANIFEST, CONSTANTS} != set(places):
                missing = sorted((names | {MANIFEST, CONSTANTS}) ^ set(places))
                raise ParseError(f"entry {missing[0]!r} is missing or not listed", where=path, hint=_RECOMPILE)
            if sum(places[name][1] for name in names) > LIMIT:
                raise ParseError(f"its code and texts exceed {LIMIT >> 20} MB", where=path, hint=_RECOMPILE)
            blobs = {}
            for name, entry in manifest["entries"].items():
                blobs[name] = _content(file, places, name, path)
                if _entry(blobs[name]) != entry:
                    raise _damaged(path, name)
            mapped = _mapped(file, *places[CONSTANTS])
    except OSError as error:
        raise EffccError(f"cannot read the artifact: {error.strerror}", where=path) from error
    constants = {key: mapped[x["offset"] : x["offset"] + x["bytes"]] for key, x in manifest["constants"].items()}
    for key, value in constants.items():
        if value.nbytes != manifest["constants"][key]["bytes"]:
            raise _damaged(path, CONSTANTS)
    return Artifact(path, manifest, blobs, constants)


def verify(path: str | os.PathLike[str], machine: Machine | None = None) -> Artifact:
    """Like `read`, and checks each weight too. Raises EffccError at the first that is damaged."""
    artifact = read(path, machine)
    for key, array in artifact.constants.items():
        if _digest([array]) != artifact.manifest["constants"][key]["sha256"]:
            raise _damaged(artifact.path, f"{CONSTANTS} ({key})")
    return artifact


# -- programs ----------------------------------------------------------------------------------------------------------

GRAPH, REPORT = "graph.effir", "report.json"


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Writes a program: its code and weights, its graph as text, and what `effcc.report` knows of it, less the
    times."""
    from .report import facts

    if not isinstance(program, Program):
        message = "a model whose shapes depend on the contents of its inputs is many programs"
        raise UnsupportedError(message, hint="fix its shapes, and save that")
    parts = program.code.parts()
    report = facts(program)
    timeless = {**report, "seconds": {}, "passes": [{**p, "seconds": 0} for p in report["passes"]]}
    texts = {GRAPH: str(program.graph).encode(), REPORT: json.dumps(timeless, separators=(",", ":")).encode()}
    options = {"passes": [p["pass"] for p in report["passes"]]}
    write(path, **{**parts, "blobs": {**parts["blobs"], **texts}}, options=options)


def load(path: str | os.PathLike[str], threads: int | None = None) -> LoadedProgram:
    """A saved program, ready to be called, without the compiler. `threads`: the default of its calls; all cores if
    None.

    It runs the native code in the file: load only what you trust. Raises EffccError where `read` does.
    """
    artifact = read(path)
    loaders = importlib.import_module("effcc.backends").LOADERS
    if artifact.backend not in loaders:
        known = f"known: {', '.join(loaders)}"
        raise UnsupportedError(f"made by backend {artifact.backend!r}", where=path, hint=known)
    module, _, function = loaders[artifact.backend].partition(":")
    try:
        report = json.loads(artifact.blobs[REPORT])
        if (part := misfit(report, FORM)) is not None:
            raise ParseError(f"{REPORT} has no valid {part}", where=path, hint=_RECOMPILE)
        text = artifact.blobs[GRAPH].decode()
        code = getattr(importlib.import_module(module), function)(artifact, threads)
        return LoadedProgram(code, report, text, str(path))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ParseError(f"{REPORT} or {GRAPH} is malformed ({error})", where=path, hint=_RECOMPILE) from error


class AbsentBlob(Blob):
    """A weight known by its hash alone: an artifact holds weights as its code wants them, not as the graph has them."""

    at_hand = False

    def __init__(self, type_: Tensor, sha256: str, where: str):
        self.type, self.where, self.owner = type_, where, None
        self.__dict__["sha256"] = sha256

    @property
    def array(self) -> Any:  # type: ignore[override]
        message = "the artifact does not hold the weights of its graph"
        raise EffccError(message, where=self.where, hint="use the model that it was compiled from")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AbsentBlob) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)


def parse_saved(text: str, where: str) -> Graph:
    """The graph of an artifact, its weights absent."""
    from .text import parse, parse_type

    blobs = {}
    for type_, digest in re.findall(r': (\w+\[[\d,]*\](?:@[^%{}"]*?)?) = const blob\("sha256:(\w+)"\)', text):
        parsed = parse_type(type_)
        assert isinstance(parsed, Tensor)
        blobs[digest] = AbsentBlob(parsed, digest, where)
    return parse(text, blobs)


# -- writing -----------------------------------------------------------------------------------------------------------


def _write_constants(archive: zipfile.ZipFile, constants: Mapping[str, np.ndarray], listed: dict[str, Any]) -> None:
    arrays = {key: np.ascontiguousarray(array) for key, array in sorted(constants.items())}
    info = zipfile.ZipInfo(CONSTANTS)
    info.file_size = sum(_padded(array.nbytes) for array in arrays.values())
    large = info.file_size > 1 << 30
    assert archive.fp is not None
    start = archive.fp.tell() + 30 + len(CONSTANTS) + (20 if large else 0)  # local header, name, zip64's sizes
    padding = -(start + 4) % ALIGNMENT
    info.extra = struct.pack("<HH", 0xD935, padding) + bytes(padding)  # the field that Android's zipalign uses
    offset = 0
    with archive.open(info, "w", force_zip64=large) as member:
        for key, array in arrays.items():
            flat = array.reshape(-1).view(np.uint8)
            for chunk in _chunks(flat):
                member.write(chunk)
            member.write(bytes(_padded(array.nbytes) - array.nbytes))
            listed[key] = {"offset": offset, "bytes": array.nbytes, "sha256": _digest([flat])}
            offset += _padded(array.nbytes)


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _chunks(flat: np.ndarray) -> Iterator[memoryview]:
    for start in range(0, flat.nbytes, _CHUNK):
        yield flat[start : start + _CHUNK].data


def _digest(parts: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _entry(blob: bytes) -> dict[str, Any]:
    return {"bytes": len(blob), "sha256": _digest([blob])}


# -- reading -----------------------------------------------------------------------------------------------------------


def _damaged(path: Path, name: str) -> ParseError:
    return ParseError(
        f"{name} is damaged: its content does not have the recorded hash", where=path, hint=_RECOMPILE
    )


def _places(file: BinaryIO, path: Path) -> dict[str, tuple[int, int]]:
    """Entry -> (offset of its content in the file, bytes); refuses whatever `write` does not make."""
    try:
        infos = zipfile.ZipFile(file).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise ParseError(f"this is not an artifact, or it is cut off ({error})", where=path, hint=_RECOMPILE) from error
    length = os.fstat(file.fileno()).st_size
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        name = info.filename
        if not _NAME.fullmatch(name) or name in places:
            raise ParseError(f"entry {name!r} has a bad name, or is there twice", where=path, hint=_RECOMPILE)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size or info.flag_bits & 0x41:
            raise ParseError(f"entry {name!r} is compressed or encrypted", where=path, hint=_RECOMPILE)
        file.seek(info.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\3\4" or info.header_offset < end:
            raise ParseError(f"entry {name!r} lies outside the file or upon another", where=path, hint=_RECOMPILE)
        name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
        start = info.header_offset + 30 + name_bytes + extra_bytes
        end = start + info.file_size
        if end > length:
            raise ParseError(f"entry {name!r} lies outside the file or upon another", where=path, hint=_RECOMPILE)
        places[name] = (start, info.file_size)
    for name in (MANIFEST, CONSTANTS):
        if name not in places:
            raise ParseError(f"entry {name!r} is missing", where=path, hint="is it an artifact of effcc?")
    if places[CONSTANTS][0] % ALIGNMENT:
        raise ParseError(
            f"{CONSTANTS} is not aligned: the file was packed by another program", where=path, hint=_RECOMPILE
        )
    return places


def _content(file: BinaryIO, places: Mapping[str, tuple[int, int]], name: str, path: Path) -> bytes:
    start, size = places[name]
    if size > LIMIT:
        raise ParseError(f"{name} exceeds {LIMIT >> 20} MB", where=path, hint=_RECOMPILE)
    file.seek(start)
    return file.read(size)


def _manifest(text: bytes, path: Path) -> dict[str, Any]:
    """The manifest with all that `read` uses of it checked."""
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError(f"{MANIFEST} is not JSON ({error})", where=path, hint=_RECOMPILE) from error
    version = manifest.get("format") if isinstance(manifest, dict) else None
    if type(version) is not int:
        raise ParseError(f"{MANIFEST} has no format number", where=path, hint=_RECOMPILE)
    if version != FORMAT:
        hint = "update effcc" if version > FORMAT else _RECOMPILE
        raise ParseError(f"its format is {version}, this effcc reads {FORMAT}", where=path, hint=hint)
    expected = {
        "backend": str,
        "target": str,
        "architecture": str,
        "platform": str,
        "features": list,
        "entries": dict,
        "constants": dict,
    }
    for key, kind in expected.items():
        if not isinstance(manifest.get(key), kind):
            raise ParseError(f"{MANIFEST} has no valid {key!r}", where=path, hint=_RECOMPILE)
    if "program" not in manifest or not all(isinstance(feature, str) for feature in manifest["features"]):
        raise ParseError(f"{MANIFEST} has no valid 'program' or 'features'", where=path, hint=_RECOMPILE)
    for part, keys in (("entries", {"bytes", "sha256"}), ("constants", {"offset", "bytes", "sha256"})):
        for name, entry in manifest[part].items():
            if not isinstance(entry, dict) or set(entry) != keys or not isinstance(entry["sha256"], str):
                raise ParseError(f"{MANIFEST} has no valid {part!r} ({name})", where=path, hint=_RECOMPILE)
            numbers = [entry[key] for key in keys - {"sha256"}]
            if any(type(n) is not int or n < 0 for n in numbers) or entry.get("offset", 0) % ALIGNMENT:
                raise ParseError(f"{MANIFEST} has no valid {part!r} ({name})", where=path, hint=_RECOMPILE)
    before, _, digest = text.rpartition(_SIGNATURE.encode())
    if digest != f'{_digest([before])}"}}'.encode():
        raise _damaged(path, MANIFEST)
    return manifest


def _check_machine(manifest: Mapping[str, Any], machine: Machine, path: Path) -> None:
    native = manifest["architecture"] != "any"  # else it holds no code for a CPU
    if native and (manifest["architecture"], manifest["platform"]) != (machine.architecture, sys.platform):
        made = f"{manifest['architecture']} on {manifest['platform']}"
        raise EffccError(
            f"compiled for {made}, this is {machine.architecture} on {sys.platform}", where=path, hint=_RECOMPILE
        )
    if missing := machine.missing(manifest["features"]):
        names = ", ".join(missing)
        raise EffccError(
            f"needs CPU features that this machine lacks: {names}",
            where=path,
            hint=f"{_RECOMPILE} for this machine, or with --target cpu{{mcpu=...}}",
        )


def _mapped(file: BinaryIO, start: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if size == 0:
        return np.zeros(0, np.uint8)
    page = start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
    memory = mmap.mmap(file.fileno(), start - page + size, access=mmap.ACCESS_READ, offset=page)
    return np.frombuffer(memory, np.uint8, size, start - page)
