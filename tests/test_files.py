import os
import stat

import pytest

from effcc.errors import EffccError
from effcc.files import beside


def test_the_file_appears_whole(tmp_path):
    path = tmp_path / "f"
    with beside(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half" and os.listdir(tmp_path) == ["f"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_on_an_error_all_is_as_it_was(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), beside(path) as file:
        file.write(b"new")
        _ = 1 / 0
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["f"]


def test_what_cannot_be_written_is_one_line(tmp_path):
    with (
        pytest.raises(EffccError, match="cannot write the page: No such file"),
        beside(tmp_path / "no" / "f", "the page"),
    ):
        pass
    with pytest.raises(EffccError, match="cannot write the file: Is a directory"), beside(tmp_path):
        pass
