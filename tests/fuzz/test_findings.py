"""Every graph that once showed a bug still agrees with the interpreter: see findings/."""

from pathlib import Path

import pytest

from effcc.fuzz.case import Case
from effcc.fuzz.laws import LAWS
from effcc.fuzz.recipe import written_in
from effcc.text import parse

FINDINGS = sorted((Path(__file__).parent / "findings").glob("*.effir"))


@pytest.mark.parametrize("path", FINDINGS, ids=lambda p: p.stem)
def test_mended(path):
    text = path.read_text()
    graph, recipe = parse(text), written_in(text)
    for seed in range(3):
        case = Case.of(graph, seed, recipe=recipe)
        for law in LAWS.values():
            law(case)
