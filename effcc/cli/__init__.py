"""The command `effcc`: `main` runs it, one module a command.

Whatever the user can mend (an EffccError, a full disk, a package that is not installed) is one line on stderr and exit
status 2; status 1 means that a check which the command was asked to make failed, or, with a traceback, a bug in effcc.
Modules here import effcc's heavy parts inside of functions: `effcc --help` loads neither torch, nor TVM, nor onnx.
"""

from __future__ import annotations

import errno
import sys
import traceback

from effcc.errors import EffccError

EXTRAS = {
    "torch": "torch",
    "tvm": "compile",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "networkx": "compile",
    "triton": "cuda",
    "openvino": "bench",
    "hypothesis": "dev",
    "onnxscript": "dev",
}
"""The extra that installs a package which a command may find missing."""
OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Failures of the system that no part of effcc can foresee."""


def main() -> None:
    """Run the command and leave with its exit status."""
    from effcc.cli.app import app

    try:
        app(prog_name="effcc")
    except BrokenPipeError:  # `effcc ops | head`
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        line = one_line(error)
        if line is None:
            traceback.print_exc()
            print("error: this is a bug in effcc; please report it with the lines above", file=sys.stderr)
            sys.exit(1)
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def one_line(error: BaseException) -> str | None:
    """What an error says to the user, or None where it is effcc's own mistake."""
    match error:
        case EffccError():
            text = " ".join(str(error).split())
            notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
            return text + notes
        case ModuleNotFoundError() if (root := (error.name or "").partition(".")[0]) in EXTRAS:
            return f"this needs the package {root!r}, which is not installed; pip install 'effcc[{EXTRAS[root]}]'"
        case OSError() if error.errno in OF_THE_MACHINE:
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{(error.strerror or str(error)).lower()}; free what is exhausted and try again"
        case MemoryError():
            return "out of memory; free some, or compile with smaller shapes"
    return None


__all__ = ["main", "one_line"]
