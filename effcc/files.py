"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from effcc.errors import EffccError


@contextmanager
def beside(path: str | os.PathLike[str], what: str = "the file") -> Iterator[BinaryIO]:
    """A file that becomes `path` when all is written, and vanishes when not: on any error `path` is as it was.

    Raises EffccError where the folder is missing or not writable, or the disk full.
    """
    path, temporary = Path(path), None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".writing-", delete=False) as file:
            temporary = file.name
            yield file  # type: ignore[misc]
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise EffccError(f"cannot write {what}: {error.strerror}", where=path) from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
