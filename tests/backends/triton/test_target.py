"""Texts of target cuda."""

from __future__ import annotations

import pytest

from effcc.backends.triton.target import ARCHITECTURES, Gpu, missing_device, offered, parse, runs_on
from effcc.errors import EffccError


@pytest.mark.parametrize("text,expected", [
    ("cuda", Gpu(ARCHITECTURES)),
    ("cuda{arch=sm_90}", Gpu((90,))),
    ("cuda{ arch=sm_90a+sm_80 , tf32=on }", Gpu((80, 90), True)),
    ("cuda{run=interpreter}", Gpu((), False, "interpreter")),
])  # fmt: skip
def test_texts(text, expected):
    assert parse(text) == expected and parse(str(expected)) == expected


@pytest.mark.parametrize("text,said", [
    ("cuda{arch=sm_1}", "unknown architecture 'sm_1'"),
    ("cuda{arch}", "has no value"),
    ("cuda{cores=3}", "unknown target option 'cores'"),
    ("cuda{run=elsewhere}", "run='elsewhere' is not offered"),
    ("cuda{tf32=maybe}", "tf32='maybe' is not offered"),
    ("cudas", "unknown target"),
])  # fmt: skip
def test_what_is_wrong_with_a_text_is_said_in_a_line(text, said):
    with pytest.raises(EffccError, match=said) as error:
        parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(missing_device() is None, reason="there is a GPU")
def test_native_needs_a_gpu():
    with pytest.raises(EffccError, match="there is no GPU here"):
        parse("cuda{arch=native}")
    assert "nothing to run on" in offered()


def test_code_runs_on_its_own_generation():
    assert runs_on(80, (8, 0)) and runs_on(80, (8, 9)) and not runs_on(89, (8, 0)) and not runs_on(80, (9, 0))
    assert runs_on(90, (9, 0)) and runs_on(100, (10, 0)) and not runs_on(100, (10, 3))
