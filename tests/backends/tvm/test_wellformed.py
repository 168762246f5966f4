"""Launch programs that a file may hold: real ones are well formed, wrong fields are refused by name."""

from dataclasses import fields, is_dataclass, replace

import pytest

from effcc.backends.tvm import entry
from effcc.backends.tvm.wellformed import _KINDS, check
from effcc.ir.attributes import read

PROGRAM = entry.Program(
    sizes=(entry.Size("N", 1, 8),),
    inputs=(entry.Input("x", "f32", ("N",), overwritten=True),),
    outputs=(entry.Output("y", "f32", ("N",)),),
    temporaries=(entry.Temporary("t", ("mul", "N", 4)),),
    steps=(
        entry.LoadSize("M", "t"),
        entry.If(("less", "N", 3), (entry.Launch("k", ("x", "y"), ("N",)),), (entry.Copy("y", "x", ("mul", "N", 4)),)),
    ),
)


def with_input(**changes):
    return replace(PROGRAM, inputs=(replace(PROGRAM.inputs[0], **changes),))


def test_a_program_is_well_formed():
    check(PROGRAM)
    check(replace(PROGRAM, outputs=(entry.Output("y", "f32", ("N",), alias="x"),)))


def test_every_field_of_a_program_can_be_checked():
    for kind in vars(entry).values():
        if is_dataclass(kind) and kind not in (entry.Section, entry.Layout):
            for field in fields(kind):
                read(str(field.type), _KINDS)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "not a program"),
        (replace(PROGRAM, steps=(3,)), "Program has no valid steps"),
        (with_input(name=3), "Input has no valid name"),
        (with_input(shape=(True,)), "Input has no valid shape"),
        (with_input(shape=(("what", 1, 2),)), "Input has no valid shape"),
        (with_input(dtype="f99"), "there is no dtype 'f99'"),
        (with_input(alignment=48), "48 is no alignment"),
        (with_input(alignment=0), "0 is no alignment"),
        (replace(PROGRAM, outputs=(entry.Output("y", "f32", alias="z"),)), "in no input's memory"),
        (replace(PROGRAM, temporaries=(entry.Temporary("t", 4, offset=-64),)), "before the arena"),
        (replace(PROGRAM, steps=(entry.LoadSize("M", "t", "f32"),)), "not loaded from 'f32'"),
        (replace(PROGRAM, steps=(entry.If(1, (entry.Launch("k", ("x", 1)),)),)), "Launch has no valid pointers"),
        (replace(PROGRAM, steps=(entry.Copy("y", "x", 2**63),)), "Copy has no valid bytes"),
    ],
)
def test_what_is_wrong_is_named(program, message):
    with pytest.raises(ValueError, match=message):
        check(program)


def test_expressions_without_end_are_refused():
    deep = 1
    for _ in range(500):
        deep = ("add", deep, 1)
    with pytest.raises(ValueError, match="Copy has no valid bytes"):
        check(replace(PROGRAM, steps=(entry.Copy("y", "x", deep),)))
