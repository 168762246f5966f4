"""Which values come to where their last bit decides."""

from __future__ import annotations

import pytest

from effcc.analysis.jumps import reaches_jump
from effcc.rewrite.workspace import Workspace
from effcc.text import parse


@pytest.mark.parametrize(("body", "decides"), [
    ("%a: f32[3] = floor(%x)", True),
    ("%a: i32[3] = cast(%x) {to=i32}", True),
    ("%a: bool[3] = eq(%x, %x)", True),
    ("%a: i64[] = argmax(%x) {axis=0, keepdims=false}", True),
    ("%a: f32[3] = mod(%x, %x)", True),
    ("%b: f32[3] = add(%x, %x)\n%c: f32[1,3] = reshape(%b) {shape=(1, 3)}\n%a: i32[1,3] = cast(%c) {to=i32}", True),
    ("%a: f32[3] = relu(%x)", False),
    ("%a: f64[3] = cast(%x) {to=f64}", False),
    ("%b: f32[3] = sin(%x)\n%a: i32[3] = cast(%b) {to=i32}", False),
    ("%b: f32[] = sum(%x) {axes=(0,), keepdims=false}\n%a: i32[] = cast(%b) {to=i32}", False),
])  # fmt: skip
def test_what_decides(body, decides):
    kind = body.rpartition("%a: ")[2].split(" ")[0]
    workspace = Workspace(parse(f"graph @f(%x: f32[3]) -> {kind} {{\n{body}\nreturn %a\n}}"))
    (x,) = workspace.graph.inputs
    assert reaches_jump(x, workspace.users) == decides
