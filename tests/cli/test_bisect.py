def test_right_passes(effcc, net):
    done = effcc("bisect", net)
    assert done.status == 0 and "all passes agree" in done.out


def test_the_wrong_rewrite_is_named(effcc, net, planted):
    planted("wrong")
    done = effcc("bisect", net, "--passes", "simplify,wrong,dce", "--json")
    found = done.json
    assert done.status == 1 and (found["pass"], found["rule"]) == ("wrong", "forget-add")
    assert "/layer.0/fc/Add" in found["at"] and "add(" in found["before"] and "add(" not in found["after"]
    shown = effcc("bisect", net, "--passes", "simplify,wrong,dce")
    assert "first wrong after pass wrong" in shown.out and "\n-  " in shown.out


def test_inputs_decide(effcc, net, planted, tmp_path):
    """Where the wrong rewrite does not matter for the given inputs, there is nothing to find."""
    import numpy as np

    planted("wrong")
    np.savez(tmp_path / "x.npz", x=np.full((1, 4), 100, "f4"))  # tanh is 1 anyhow
    assert effcc("bisect", net, "--passes", "wrong", "-i", tmp_path / "x.npz").status == 0
    assert "missing x" in effcc("bisect", net, "-i", _other(tmp_path)).refused()


def _other(tmp_path):
    import numpy as np

    np.savez(tmp_path / "z.npz", z=np.zeros(1))
    return tmp_path / "z.npz"
