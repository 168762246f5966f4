import pytest

from effcc.cli.options import parse_shapes
from effcc.errors import InputError
from effcc.ir.dims import Symbol


def test_shapes():
    assert parse_shapes(None) is None
    assert parse_shapes(["x=1x3x224x224", "y=7"]) == {"x": (1, 3, 224, 224), "y": (7,)}
    assert parse_shapes(["x=Nx3x?,N=1..64"]) == {"x": (Symbol("N", 1, 64), 3, None)}
    assert parse_shapes(["x=Nx4", "N=2.."]) == {"x": (Symbol("N", 2), 4)}
    assert parse_shapes(["a/b:0=2x2"]) == {"a/b:0": (2, 2)}
    assert parse_shapes(["x=N"]) == {"x": (Symbol("N", 1),)}


@pytest.mark.parametrize("text", ["x", "=1x2", "x=1x-2", "x=1xx2", "x=1,5", "x=a b"])
def test_what_is_no_shape(text):
    with pytest.raises(InputError, match="--shape"):
        parse_shapes([text])


def test_ranges_that_make_no_sense():
    with pytest.raises(InputError, match="empty"):
        parse_shapes(["x=N,N=4..2"])
    with pytest.raises(InputError, match="no size is called M"):
        parse_shapes(["x=N,M=1..2"])
