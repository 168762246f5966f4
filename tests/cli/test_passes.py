from effcc.pipeline import pass_table


def test_every_pass_is_listed(effcc):
    found = {p["name"]: p for p in effcc("passes", "--json").json}
    assert set(found) == set(pass_table())
    assert found["fuse"]["category"] == "lower" and found["fuse"]["options"]["max-ops"]["default"] > 0
    assert all(p["summary"] and p["contract"] for p in found.values())
    shown = effcc("passes").out
    assert all(name in shown for name in found)


def test_one_pass_in_full(effcc):
    shown = effcc("passes", "simplify").out
    assert "rules:" in shown and "-->" in shown
    assert "did you mean" in effcc("passes", "simplfy").refused()


def test_a_plug_in_that_does_not_load_is_told_and_does_no_harm(effcc, monkeypatch):
    monkeypatch.setitem(pass_table(), "gone", "no_such_module:Gone")
    listed = effcc("passes")
    assert listed.status == 0 and "problem: pass 'gone' cannot be loaded" in listed.err and "simplify" in listed.out
