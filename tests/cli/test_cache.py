import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EFFCC_CACHE_LIMIT", raising=False)
    return tmp_path / "cache"


def test_show_limit_clear(effcc, net, tmp_path, folder):
    empty = effcc("cache", "show", "--json").json
    assert empty == {"folder": str(folder), "entries": 0, "bytes": 0, "limit": 1 << 30}
    assert effcc("compile", net, "-o", tmp_path / "n.effcc").status == 0
    full = effcc("cache", "show", "--json").json
    assert full["entries"] >= 2 and full["bytes"] > 0
    assert "at most 2.0 GB" in effcc("cache", "limit", "2g").out
    assert effcc("cache", "show", "--json").json["limit"] == 2 << 30
    assert effcc("cache", "limit", "1").status == 0  # one byte: everything goes
    assert effcc("cache", "show", "--json").json["entries"] == 0
    assert effcc("cache", "clear").out == "0 kernels deleted\n"


def test_what_is_no_size(effcc):
    assert "write 500m or 2g" in effcc("cache", "limit", "lots").refused()


def test_a_folder_that_cannot_be_written(effcc, folder):
    folder.write_text("a file where the folder should be")
    effcc("cache", "limit", "1g").refused()
    assert effcc("cache", "show").status == 0
