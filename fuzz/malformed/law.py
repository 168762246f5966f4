"""What must hold of all that reads files: it works, or it refuses in one line; in time, in memory, in its folder.

`Sandbox` is a folder with a model's place in it, and other places that nothing may touch; `hold(sandbox, action)` does
one thing with the file in it and raises `Broken` where the law does not hold. Memory is what the process may have
(RLIMIT_AS, set by the campaign's workers); time is that of the CPU, which other processes do not lengthen.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import effcc
from effcc.errors import EffccError
from effcc.fuzz.limit import OutOfTime, limited

SECONDS = 10.0
LONGEST_LINE = 1000
BUG = "this is a bug in effcc"
"""What effcc says where it does not know itself what is wrong with a file: that is no refusal."""

_HERE = Path(effcc.__file__).parents[1]
_ROOMS = ("effcc", "passes", "backends", "frontends", "fuzz")
_WATCHING = r"/fuzz/(malformed/|limit\.py)"


class Broken(Exception):
    """The law does not hold. kind: traceback, unforeseen, lines, status, hang, memory, crash, written, read, left."""

    def __init__(self, kind: str, message: str, trace: str = ""):
        super().__init__(f"{kind}: {message}")
        self.kind, self.message, self.trace = kind, message, trace

    @property
    def site(self) -> str:
        """Where in effcc it happened: what tells findings apart."""
        return site(self.trace) or re.sub(r"\d+|'[^']*'", "#", self.message)[:100]


def site(trace: str) -> str:
    """The last frame inside effcc, and what was raised: "effcc/text/parser.py string JSONDecodeError"."""
    frames = re.findall(r'File "([^"]+)", line \d+,? in (\S+)', trace)
    ours = [f for f in frames if any(f"/{room}/" in f[0] for room in _ROOMS) and not re.search(_WATCHING, f[0])]
    raised = re.findall(r"^([\w.]*(?:Error|Exception|Interrupt|Warning|OutOfTime)\w*)", trace, re.M)
    if not ours:
        return ""
    path, name = ours[-1]
    short = re.sub(rf".*?/((?:{'|'.join(_ROOMS)})/.*)", r"\1", path.replace(f"{_HERE}/", "/"))
    return f"{short} {name} {raised[-1] if raised else ''}".strip()


# -- the folder --
@dataclass(frozen=True)
class Sandbox:
    """home/ and tmp/ are the process's own; model/ holds the file; outside/ is what it must not reach."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Sandbox:
        """A fresh one, and the environment variables that point into it."""
        box = cls(root.resolve())
        for folder in (box.home, box.tmp, box.model, box.outside, box.cache):
            folder.mkdir(parents=True, exist_ok=True)
        (box.outside / "secret.bin").write_bytes(bytes(range(256)) * 16)
        (box.model / "data.bin").write_bytes(bytes(range(256)) * 16)
        for name, target in (("link.bin", box.outside / "secret.bin"), ("linked", box.outside)):
            link = box.model / name
            if not link.is_symlink():
                link.symlink_to(target)
        os.environ.update(
            HOME=str(box.home), TMPDIR=str(box.tmp), EFFCC_CACHE_DIR=str(box.cache), XDG_CACHE_HOME=str(box.home)
        )
        tempfile.tempdir = None  # it is asked for again
        return box

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def output(self) -> Path:
        return self.model / "out.effcc"

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file but the cache's and the output: size and time of writing."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            if folder == str(self.root):
                folders.remove("cache")
            for name in names:
                path = os.path.join(folder, name)
                if path != str(self.output):
                    stat = os.lstat(path)
                    found[os.path.relpath(path, self.root)] = stat.st_size, stat.st_mtime_ns
        return found


class Watch:
    """What this process opens, by Python's audit events: what is written outside of the sandbox, and what is read that
    a model has no business with. One a process: audit hooks stay."""

    def __init__(self, box: Sandbox):
        self.box, self.on = box, False
        self.written: list[str] = []
        self.read: list[str] = []
        self.may_write = (str(box.root), "/dev/null", "/proc/self", "/dev/tty")
        sys.dont_write_bytecode = True
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            if not isinstance(path, (str, bytes, os.PathLike)):
                return
            text = os.path.abspath(os.fsdecode(path))
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
                self._wrote(text)
            elif os.path.realpath(text).startswith((str(self.box.outside), "/etc", "/dev/zero")):
                self.read.append(text)
        elif event in ("os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"):
            if isinstance(arguments[0], (str, bytes, os.PathLike)):
                self._wrote(os.path.abspath(os.fsdecode(arguments[0])))
        elif event in ("os.rename", "os.link", "os.symlink"):
            self._wrote(os.path.abspath(os.fsdecode(arguments[1])))

    def _wrote(self, path: str) -> None:
        if not path.startswith(self.may_write):
            self.written.append(path)

    @contextmanager
    def looking(self) -> Iterator[None]:
        self.written.clear()
        self.read.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False


# -- what is done with a file --
def _import(path: Path) -> None:
    import effcc.frontends

    effcc.frontends.find(str(path)).load(str(path))  # type: ignore[union-attr]


def _passes(path: Path) -> None:
    """The target's own pipeline, without code at its end."""
    import effcc.frontends
    from effcc.driver import backend_of
    from effcc.ir import verify
    from effcc.pipeline import Context, PassManager, parse_pipeline

    graph = effcc.frontends.find(str(path)).load(str(path))  # type: ignore[union-attr]
    verify(graph)
    backend = backend_of("cpu")
    PassManager(()).run(graph, parse_pipeline(backend.pipeline()), Context(machine=backend.machine))


def _compile(path: Path) -> None:
    import effcc

    effcc.compile(str(path), tune="none")


def _print(path: Path) -> None:
    """Parse, print, parse again."""
    import effcc.frontends
    from effcc.text import parse, print_graph

    graph = effcc.frontends.find(str(path)).load(str(path))  # type: ignore[union-attr]
    again = parse(print_graph(graph))
    if again != graph:
        raise AssertionError(f"printed and parsed again it is another graph: {graph}")


def _read(path: Path) -> None:
    from effcc import artifact

    artifact.verify(path)


def _load(path: Path) -> None:
    import effcc

    program = effcc.load(path)
    program.report()
    _ = program.graph, program.launches


API: dict[str, Callable[[Path], None]] = {
    "import": _import,
    "passes": _passes,
    "compile": _compile,
    "print": _print,
    "read": _read,
    "load": _load,
}


def hold(box: Sandbox, watch: Watch, path: Path, action: str) -> str:
    """Do one thing with a file: "works" or "refused". Raises Broken.

    action: a key of API, or a command line in which FILE and OUT stand for the file and the output.
    """
    box.output.unlink(missing_ok=True)
    before = box.files()
    with watch.looking():
        try:
            with limited(SECONDS):
                works = _call(API[action], path) if action in API else _command(_words(action, path, box))
        except OutOfTime as error:
            raise Broken("hang", f"{action}: more than {SECONDS:g} s", _trace(error)) from None
    if watch.written:
        raise Broken("written", f"{action}: {watch.written[0]}")
    if watch.read:
        raise Broken("read", f"{action}: {watch.read[0]}")
    if (after := box.files()) != before:
        raise Broken("left", f"{action}: {sorted(after.items() ^ before.items())[0][0]} was made, changed or removed")
    if box.output.exists() and not works:
        raise Broken("left", f"{action}: a half-made {box.output.name}")
    return "works" if works else "refused"


def _words(action: str, path: Path, box: Sandbox) -> list[str]:
    return [str({"FILE": path, "OUT": box.output}.get(word, word)) for word in action.split()]


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _call(function: Callable[[Path], None], path: Path) -> bool:
    """Whether it works; an EffccError in one line is a refusal, anything else breaks the law."""
    try:
        function(path)
    except EffccError as error:
        if BUG in str(error):
            cause = error.__cause__ or error
            raise Broken("unforeseen", str(error), _trace(cause)) from None
        one_line(str(error))
        return False
    except MemoryError as error:
        raise Broken("memory", "more than the process may have", _trace(error)) from None
    except Exception as error:
        raise Broken("traceback", f"{type(error).__name__}: {error}"[:500], _trace(error)) from None
    return True


def one_line(text: str) -> None:
    """Raises Broken unless a message is one line that a terminal can show."""
    odd = [c for c in text if not c.isprintable()]
    if odd or not text.strip():
        raise Broken("lines", f"not one line to read: {text[:200]!r}")
    if len(text) > LONGEST_LINE:
        raise Broken("lines", f"a line of {len(text)} characters: {text[:200]!r}")


def _command(words: Sequence[str]) -> bool:
    """Whether the command ends well; status 2 and one line on stderr is a refusal.

    It runs in this process, after "$" in one of its own.
    """
    if words[0] == "$":
        return _process(words[1:])
    from effcc.cli import main

    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["effcc", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        status: Any = 0
    except SystemExit as leaving:
        status = leaving.code or 0
    finally:
        sys.argv = argv
    return judge(words[0], status, err.getvalue())


def _process(words: Sequence[str]) -> bool:
    environment = {**os.environ, "PYTHONPATH": str(_HERE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "effcc", *words]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=6 * SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Broken("hang", f"{words[0]}: a process of its own does not end") from None
    return judge(words[0], done.returncode, done.stderr)


def judge(command: str, status: int, stderr: str) -> bool:
    """The law for an exit status and what was printed on stderr; true where the command worked."""
    if "Traceback (most recent call last)" in stderr:
        raise Broken("traceback", f"{command}: {stderr.strip().splitlines()[-2:][0][:500]}", stderr)
    if BUG in stderr:
        raise Broken("unforeseen", f"{command}: {stderr.strip()[:500]}")
    if status == 0 or (status == 1 and command == "verify"):  # the compiled program and the reference differ
        return True
    if status != 2:
        raise Broken("status", f"{command}: exit status {status}: {stderr[-300:]}", stderr)
    line, rest = stderr.partition("\n")[::2]
    if not line.startswith("error: ") or rest:
        raise Broken("lines", f"{command}: not one line: {stderr[:300]!r}")
    one_line(line)
    return False
