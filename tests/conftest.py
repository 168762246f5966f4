"""What every test run checks besides its tests."""

from __future__ import annotations

import sys

import pytest

# These folders stand at the top of the checkout, but their import name is always effcc.passes and so on. Under the bare
# name every class would exist twice, and isinstance would lie.
ROOMS = ("passes", "backends", "frontends", "fuzz")


def bare_rooms(names: list[str]) -> list[str]:
    """The modules among `names` that were imported past the package `effcc`."""
    return sorted(name for name in names if name.partition(".")[0] in ROOMS)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if found := bare_rooms(list(sys.modules)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        message = f"imported past the package effcc: {', '.join(found)}; write effcc.{found[0]} instead"
        if reporter is not None:
            reporter.write_line(f"ERROR: {message}", red=True)
