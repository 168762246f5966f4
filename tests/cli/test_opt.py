import io

from effcc.text import parse


def test_a_model_is_printed_as_it_is(effcc, net):
    done = effcc("opt", net)
    assert parse(done.out) == parse(net.read_text()) and "/layer.1/Tanh" in done.out


def test_passes_are_run(effcc, net):
    assert "neg" not in effcc("opt", net, "--passes", "simplify,dce").out
    assert "loc(" not in effcc("opt", net, "--no-locations").out


def test_fuel_stops_the_rewrites(effcc, net):
    assert "neg" in effcc("opt", net, "--passes", "simplify,dce", "--fuel", 0).out


def test_print_after(effcc, net):
    done = effcc("opt", net, "--passes", "simplify,dce,fuse", "--print-after", "simplify", "--verify-each")
    assert done.err.count("# after ") == 1 and "# after simplify" in done.err
    assert effcc("opt", net, "--passes", "simplify,dce,fuse", "--print-after", "all").err.count("# after ") >= 2


def test_a_pass_that_breaks_the_graph_is_named(effcc, net, planted):
    planted("unsound")
    assert "pass unsound broke the graph" in effcc("opt", net, "--passes", "unsound", "--verify-each").refused()


def test_stdin_and_a_file(effcc, net, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(net.read_text()))
    assert effcc("opt", "-", "-o", tmp_path / "out.effir").out == ""
    assert parse((tmp_path / "out.effir").read_text()) == parse(net.read_text())
    assert "cannot write" in effcc("opt", net, "-o", tmp_path / "no" / "out.effir").refused()
