"""What the documents show on the command line exists."""

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]


def shown():
    for page in PAGES:
        for line in re.findall(r"^\$ effcc (.*?)\s*(?:#.*)?$", page.read_text(), re.MULTILINE):
            yield pytest.param(line, id=f"{page.name}: {line}")


@pytest.mark.parametrize("line", list(shown()))
def test_commands_and_options_exist(effcc, line):
    words = shlex.split(line)
    path = [words[0]] + ([words[1]] if words[0] == "cache" else [])
    help = effcc(*path, "--help")
    assert help.status == 0, help.err
    for option in (w.partition("=")[0] for w in words if re.match(r"--?[a-z]", w)):
        assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help.out), f"{path} has no {option}"


def test_the_page_of_the_command_shows_every_command(effcc):
    text = (ROOT / "docs" / "command.md").read_text()
    for command in "compile run verify bench inspect opt passes ops explain bisect doctor cache".split():
        assert f"$ effcc {command} " in text or f"$ effcc {command}\n" in text
