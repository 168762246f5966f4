from effcc.ir import load_ops


def test_every_op_is_listed_with_signature_and_meaning(effcc):
    found = {o["name"]: o for o in effcc("ops", "--json").json}
    assert set(found) == set(load_ops())
    assert found["gelu"]["signature"] == 'gelu(x) {approximate="none"}'
    assert all(o["doc"] for o in found.values())


def test_families_and_single_ops(effcc):
    assert {o["family"] for o in effcc("ops", "--family", "window", "--json").json} == {"window"}
    assert effcc("ops", "matmul").out.startswith("matmul(a, b) {transpose_a=false")
    assert "did you mean 'matmul'" in effcc("ops", "matmull").refused()
    assert "families: " in effcc("ops", "--family", "nothing").refused()
    assert "softmax" in effcc("ops").out
