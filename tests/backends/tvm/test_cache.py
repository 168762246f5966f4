import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from effcc.backends.tvm.cache import DEFAULT_LIMIT, ObjectCache, default_cache, default_folder, parse_size
from effcc.errors import EffccError

KEYS = [f"{i:02x}" * 32 for i in range(8)]


def test_what_was_put_is_got(tmp_path):
    cache = ObjectCache(tmp_path / "deep" / "down")
    assert cache.get(KEYS[0]) is None
    cache.put(KEYS[0], b"code")
    assert cache.get(KEYS[0]) == b"code"


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 100])
def test_a_damaged_entry_is_gone(tmp_path, damage):
    cache = ObjectCache(tmp_path)
    cache.put(KEYS[0], b"code")
    (file,) = tmp_path.glob("*/*.o")
    file.write_bytes(damage)
    assert cache.get(KEYS[0]) is None
    assert not file.exists()


def test_the_entries_used_longest_ago_are_evicted(tmp_path):
    cache = ObjectCache(tmp_path, limit=4 * 132)
    for age, key in enumerate(reversed(KEYS[:4])):
        cache.put(key, b"c" * 100)
        os.utime(cache._path(key), (1000 + age, 1000 + age))
    assert cache.get(KEYS[3]) is not None  # the oldest is used once more
    cache.put(KEYS[4], b"c" * 100)
    assert {key for key in KEYS if cache.get(key)} == {KEYS[0], KEYS[1], KEYS[3], KEYS[4]}


def test_show_limit_and_clear(tmp_path, monkeypatch):
    monkeypatch.delenv("EFFCC_CACHE_LIMIT", raising=False)
    cache = ObjectCache(tmp_path)
    assert cache.state().limit == DEFAULT_LIMIT
    for key in KEYS[:3]:
        cache.put(key, b"c" * 100)
    state = cache.state()
    assert (state.entries, state.bytes) == (3, 3 * 132)
    cache.set_limit(150)
    assert cache.state().entries == 1 and ObjectCache(tmp_path).limit == 150
    assert cache.clear() == 1 and cache.state().bytes == 0


def test_an_unwritable_folder_only_caches_nothing(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    cache = ObjectCache(tmp_path / "file")
    cache.put(KEYS[0], b"code")
    assert cache.get(KEYS[0]) is None and cache.state().entries == 0


def test_the_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EFFCC_CACHE_DIR", str(tmp_path))
    assert default_folder() == tmp_path and default_cache().folder == tmp_path
    monkeypatch.delenv("EFFCC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert default_folder() == tmp_path / "xdg" / "effcc"


def test_processes_that_write_the_same_entries_at_once_leave_whole_ones(tmp_path):
    program = """
import sys
from pathlib import Path
from effcc.backends.tvm.cache import ObjectCache
cache = ObjectCache(Path(sys.argv[1]))
for i in range(50):
    for n in range(4):
        cache.put(f"{n:02x}" * 32, bytes([n]) * 5000)
        assert cache.get(f"{n:02x}" * 32) in (None, bytes([n]) * 5000)
"""
    writers = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert all(ObjectCache(tmp_path).get(f"{n:02x}" * 32) == bytes([n]) * 5000 for n in range(4))
    assert not list(Path(tmp_path).glob("*/.writing-*"))


def test_sizes():
    assert [parse_size(text) for text in ("17", "3k", "500m", "2GiB")] == [17, 3 << 10, 500 << 20, 2 << 30]
    with pytest.raises(EffccError, match="write 500m"):
        parse_size("much")


def test_using_an_entry_renews_it(tmp_path):
    cache = ObjectCache(tmp_path)
    cache.put(KEYS[0], b"code")
    os.utime(cache._path(KEYS[0]), (1000, 1000))
    cache.get(KEYS[0])
    assert cache._path(KEYS[0]).stat().st_mtime > time.time() - 1000
