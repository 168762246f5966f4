from effcc.ir import UNKNOWN, FusedLoc, Loc, PassLoc, merge


def test_merging_flattens_and_drops_duplicates():
    a, b, c = (Loc("m", n) for n in "abc")
    assert merge((a, UNKNOWN, a)) == a
    assert merge(()) == UNKNOWN
    assert merge((merge((a, b)), c, b)) == FusedLoc(locs=(a, b, c))


def test_texts():
    assert str(Loc("m.onnx", "fc")) == "m.onnx:fc"
    assert str(FusedLoc(locs=tuple(Loc("", n) for n in "abcd"))) == "a + b + c + ..."
    assert str(PassLoc(name="fold", origin=Loc("", "a"))) == "fold(a)"
