"""Every attribute of every op has a type that can be checked."""

import pytest

from effcc.ir import DTYPES, Symbol, load_ops
from effcc.ir.attributes import checker, fits, split


def test_every_annotation_of_an_op_is_understood():
    for cls in load_ops().values():
        for field in cls.attributes():
            checker(str(field.type))


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, "int", True),
        (True, "int", False),
        (1, "float", True),
        ("1", "float", False),
        ((), "tuple[int, ...]", True),
        ((1, True), "tuple[int, ...]", False),
        ((1, 2), "tuple[int, int]", True),
        ((1,), "tuple[int, int]", False),
        ((Symbol("N"), 3), "tuple[Dim, ...]", True),
        (0.5, "Dim", False),
        (None, "tuple[float, ...] | None", True),
        (DTYPES["f32"], "DType", True),
        ("f32", "DType", False),
    ],
)
def test_values_against_annotations(value, annotation, expected):
    assert fits(value, annotation) == expected


def test_signs_inside_of_brackets_do_not_split():
    assert split("tuple[int | None, ...] | None", "|") == ["tuple[int | None, ...]", "None"]
