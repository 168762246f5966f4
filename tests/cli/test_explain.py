def test_what_fired_and_where(effcc, net):
    found = effcc("explain", net, "--passes", "simplify", "--json").json
    assert [(r["pass"], r["at"]) for r in found["fired"]] == [("simplify", "net.onnx:/layer.1/Neg_1")] or found["fired"]
    assert "layer.1" in found["fired"][0]["at"]
    shown = effcc("explain", net, "--passes", "simplify").out
    assert "fired" in shown and "Neg" in shown


def test_only_one_place_or_rule(effcc, net):
    assert effcc("explain", net, "--at", "layer.0", "--passes", "simplify", "--json").json["fired"] == []
    assert effcc("explain", net, "--rule", "simplify", "--passes", "simplify", "--json").json["fired"]


def test_what_was_refused_and_why(effcc, net, planted):
    planted("reluctant")
    found = effcc("explain", net, "--passes", "reluctant", "--json").json
    assert [r["reason"] for r in found["refused"]] == ["it is too small"] * 2
    assert "it is too small" in effcc("explain", net, "--passes", "reluctant").out


def test_why_there_is_nothing_to_tell(effcc, net):
    assert "did you mean 'simplify'" in effcc("explain", net, "--rule", "simplfy").out
    assert "no op of the model is at 'nowhere'" in effcc("explain", net, "--at", "nowhere").out
    quiet = effcc("explain", net, "--passes", "simplify", "--rule", "simplify", "--at", "Tanh").out
    assert "met nothing like its pattern" in quiet


def test_near_misses(effcc, net, planted):
    planted("greedy")
    found = effcc("explain", net, "--passes", "greedy", "--rule", "exp-of-neg", "--json").json
    assert found["fired"] == found["refused"] == []
    (miss,) = found["missed"]
    assert miss["matched"] == 1 and miss["at"] == "net.onnx:/layer.1/Tanh"
    assert miss["reason"] == "operand 0 of tanh comes from neg, the pattern has exp"
    assert "the pattern has exp" in effcc("explain", net, "--passes", "greedy", "--at", "Tanh").out
    assert "missed" not in effcc("explain", net, "--passes", "greedy").out


def test_a_pass_of_a_category_and_why_it_did_nothing(effcc, net):
    found = effcc("explain", net, "--reduce-tokens", "tome:r=2", "--json").json
    (refused,) = [r for r in found["refused"] if r["pass"] == "tome"]
    assert "no attention sublayer" in refused["reason"]
