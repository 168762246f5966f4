import errno
import sys

import pytest

from effcc.cli import main, one_line
from effcc.errors import EffccError, InputError

COMMANDS = "compile run verify bench inspect opt passes ops explain bisect doctor cache".split()


def test_help_lists_every_command(effcc):
    help = effcc("--help")
    assert help.status == 0
    for command in COMMANDS:
        assert f" {command} " in help.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(effcc, command):
    help = effcc(command, "--help")
    assert help.status == 0 and "Usage: effcc" in help.out


def test_no_arguments_show_the_help(effcc):
    shown = effcc()
    assert "Usage: effcc" in shown.out + shown.err


def test_version(effcc):
    import effcc as package

    assert effcc("--version").out == f"effcc {package.__version__}\n"


def test_shell_completion_is_offered(effcc, monkeypatch):
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    shown = effcc("--show-completion", "bash")
    assert shown.status == 0 and "_EFFCC_COMPLETE" in shown.out


def test_an_unknown_option_is_refused(effcc):
    refused = effcc("ops", "--frob")
    assert refused.status == 2 and "--frob" in refused.err


def test_a_bug_shows_its_traceback_and_status_1(effcc, monkeypatch):
    monkeypatch.setattr("effcc.ir.op.load_ops", lambda: 1 / 0)
    failed = effcc("ops")
    assert failed.status == 1
    assert "ZeroDivisionError" in failed.err and failed.err.endswith("report it with the lines above\n")


def test_one_line_joins_the_lines_of_a_message_and_its_notes():
    error = InputError("bad\nthing", where="here", hint="mend it")
    error.add_note("in pass fold")
    assert one_line(error) == "here: bad thing; mend it (in pass fold)"


def test_a_missing_package_names_the_extra():
    line = one_line(ModuleNotFoundError("No module named 'onnx.helper'", name="onnx.helper"))
    assert line == "this needs the package 'onnx', which is not installed; pip install 'effcc[onnx]'"
    assert one_line(ModuleNotFoundError("No module named 'effcc.nope'", name="effcc.nope")) is None


def test_an_exhausted_machine_is_no_bug():
    assert "no space left on device" in one_line(OSError(errno.ENOSPC, "No space left on device", "x.npz"))
    assert one_line(MemoryError()).startswith("out of memory")
    assert one_line(OSError(errno.ENOENT, "No such file", "x")) is None
    assert one_line(ValueError("?")) is None
    assert one_line(EffccError("x")) == "x"


def test_a_closed_pipe_is_quiet(monkeypatch):
    def broken(**_):
        raise BrokenPipeError

    monkeypatch.setattr("effcc.cli.app.app", broken)
    monkeypatch.setattr(sys, "stderr", open("/dev/null", "w"))
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 141
