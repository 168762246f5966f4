"""The disk cache of object files: content-keyed, bounded, shared by processes, and never trusted blindly.

One file an entry, `<folder>/<2 hex>/<key>.o` = SHA-256 of the object (32 bytes), then the object.  Files are written
beside and renamed, so that a reader sees all or nothing and two writers of one key both win.  A file whose hash does
not match is deleted and counts as absent.  Reading an entry renews its time; when the folder grows over its limit, the
entries that were not used for longest go first.

The folder is $EFFCC_CACHE_DIR, or `effcc` in $XDG_CACHE_HOME (~/.cache); the limit is $EFFCC_CACHE_LIMIT or what
`effcc cache limit` stored, 1 GiB by default.  An unwritable folder only means that nothing is cached.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from effcc.errors import EffccError

DEFAULT_LIMIT = 1 << 30


@dataclass(frozen=True)
class CacheState:
    """What `effcc cache` shows."""

    folder: Path
    entries: int
    bytes: int
    limit: int


class ObjectCache:
    """A cache in one folder. `limit` is in bytes; None asks the environment, then the folder's own setting."""

    def __init__(self, folder: Path, limit: int | None = None):
        self.folder = folder
        self._limit = limit
        self._written = 0
        self._lock = threading.Lock()

    @property
    def limit(self) -> int:
        if self._limit is not None:
            return self._limit
        if text := os.environ.get("EFFCC_CACHE_LIMIT"):
            return parse_size(text)
        try:
            return parse_size((self.folder / "limit").read_text())
        except (OSError, EffccError):
            return DEFAULT_LIMIT

    def get(self, key: str) -> bytes | None:
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, data = content[:32], content[32:]
        if hashlib.sha256(data).digest() != digest:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, hashlib.sha256(data).digest() + data)
        except OSError:
            return
        with self._lock:
            self._written += len(data)
            due = self._written > self.limit // 64
            if due:
                self._written = 0
        if due:
            self.evict(self.limit)

    def evict(self, limit: int) -> int:
        """Deletes the entries used longest ago until at most `limit` bytes are left; returns how many went."""
        entries = sorted(self._entries())
        excess, gone = sum(size for _, size, _ in entries) - limit, 0
        for _, size, path in entries:
            if excess <= 0:
                break
            with contextlib.suppress(OSError):
                path.unlink()
            excess, gone = excess - size, gone + 1
        return gone

    def clear(self) -> int:
        """Deletes every entry; returns how many there were."""
        return self.evict(-1)

    def set_limit(self, limit: int) -> None:
        """Stores the folder's limit, and enforces it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / "limit", str(limit).encode())
        except OSError as error:
            raise EffccError(f"cannot write the cache's limit: {error.strerror}", where=self.folder) from error
        self.evict(limit)

    def state(self) -> CacheState:
        entries = list(self._entries())
        return CacheState(self.folder, len(entries), sum(size for _, size, _ in entries), self.limit)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.o"

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of each entry; leftovers of killed writers are among them."""
        try:
            folders = [entry for entry in os.scandir(self.folder) if re.fullmatch("[0-9a-f]{2}", entry.name)]
        except OSError:
            return
        for folder in folders:
            with contextlib.suppress(OSError):
                for entry in os.scandir(folder.path):
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        yield status.st_mtime, status.st_size, Path(entry.path)


def default_cache() -> ObjectCache:
    return _cache_of(default_folder())


def default_folder() -> Path:
    if folder := os.environ.get("EFFCC_CACHE_DIR"):
        return Path(folder)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "effcc"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "effcc"


_caches: dict[Path, ObjectCache] = {}


def _cache_of(folder: Path) -> ObjectCache:
    return _caches.setdefault(folder, ObjectCache(folder))


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside and renames: whoever reads `path` sees the old content or all of the new one. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def parse_size(text: str) -> int:
    """Bytes of `500m`, `2g` or `1048576`.

    >>> parse_size("2g") == 2 << 30
    True
    """
    match = re.fullmatch(r"(\d+)\s*([kmg]?)i?b?", text.strip().lower())
    if match is None:
        raise EffccError(f"{text.strip()!r} is not a size", hint="write 500m or 2g")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]
