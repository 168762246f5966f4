import json
import mmap
import os
import resource
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effcc import artifact
from effcc.errors import EffccError
from effcc.machine import host

BLOBS = {"code/k.o": b"\x7fELF" * 10, "graph.effir": b"graph @f"}
CONSTANTS = {
    "w": np.arange(100, dtype="f4"),
    "odd": np.arange(3, dtype="i1"),
    "none": np.zeros(0, "f4"),
    "scalar": np.array(7.0),
}
PROGRAM = {"steps": [["launch", 1], ["copy", "a", "b"]]}


@pytest.fixture
def path(tmp_path):
    made = tmp_path / "model.effcc"
    write(made)
    return made


def write(path, machine=None, **changes):
    arguments = {
        "backend": "tvm",
        "machine": machine or host(),
        "program": PROGRAM,
        "blobs": BLOBS,
        "constants": CONSTANTS,
    }
    artifact.write(path, **{**arguments, **changes})


def one_line(error):
    return str(error.value).count("\n") == 0 and str(error.value)


def test_what_was_written_is_read(path):
    read = artifact.verify(path)
    assert read.backend == "tvm" and read.program == PROGRAM and read.blobs == BLOBS
    assert set(read.constants) == set(CONSTANTS)
    for key, array in CONSTANTS.items():
        assert read.constants[key].tobytes() == array.tobytes()
        assert read.constants[key].ctypes.data % 64 == 0 or array.size == 0
    assert not read.constants["w"].flags.writeable


def test_the_weights_are_mapped_not_read(path):
    memory = artifact.read(path).constants["w"]
    while isinstance(memory, np.ndarray):
        memory = memory.base
    assert isinstance(memory, memoryview | mmap.mmap) and isinstance(getattr(memory, "obj", memory), mmap.mmap)


def test_equal_contents_give_equal_files(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", blobs=dict(reversed(BLOBS.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_it_is_a_plain_zip(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("graph.effir") == b"graph @f"


@pytest.mark.parametrize("name", ["code/k.o", "graph.effir", "manifest.json"])
def test_damaged_code_is_refused_on_load(path, name):
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(name).header_offset + 30 + len(name) + 5
    data = bytearray(path.read_bytes())
    data[start] ^= 255
    path.write_bytes(data)
    with pytest.raises(EffccError, match="damaged|not JSON|no valid|format") as error:
        artifact.read(path)
    assert one_line(error)


def test_damaged_weights_are_found_by_verify(path):
    data = path.read_bytes()
    at = data.index(CONSTANTS["w"].tobytes()) + 17
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    artifact.read(path)
    with pytest.raises(EffccError, match=r"constants.bin \(w\) is damaged") as error:
        artifact.verify(path)
    assert one_line(error)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(part=st.floats(0, 0.999))
def test_a_cut_off_file_is_refused(path, part):
    data = path.read_bytes()
    cut = path.with_name("cut.effcc")
    cut.write_bytes(data[: int(part * len(data))])
    with pytest.raises(EffccError) as error:
        artifact.read(cut)
    assert one_line(error)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.floats(0, 0.9999), value=st.integers(0, 255))
def test_a_changed_byte_gives_an_error_or_changes_nothing(path, place, value):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] = value
    changed = path.with_name("changed.effcc")
    changed.write_bytes(data)
    try:
        read = artifact.verify(changed)
    except EffccError as error:
        assert "\n" not in str(error)
    else:
        assert read.blobs == BLOBS and all(read.constants[k].tobytes() == CONSTANTS[k].tobytes() for k in CONSTANTS)


@pytest.mark.parametrize("content", [b"", b"PK\5\6" + bytes(18), b"not a zip", b"\0" * 1000])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(EffccError) as error:
        artifact.read(tmp_path / "other")
    assert one_line(error)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(EffccError, match="No such file"):
        artifact.read(tmp_path / "none")
    with pytest.raises(EffccError, match="Is a directory"):
        artifact.read(tmp_path)
    with pytest.raises(EffccError, match="cannot write the artifact: No such file"):
        write(tmp_path / "none" / "model.effcc")


def repack(path, change=None, **options):
    """The artifact with its entries changed: a function of {name: bytes} that may return a list of pairs."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    made = change(entries) if change else None
    pairs = made if made is not None else list(entries.items())
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in pairs:
            info = zipfile.ZipInfo(name)
            info.compress_type = options.get("compression", zipfile.ZIP_STORED)
            if name == "constants.bin":
                padding = -(archive.fp.tell() + 30 + len(name) + 4) % 64
                info.extra = struct.pack("<HH", 0xD935, padding) + bytes(padding)
            archive.writestr(info, data)


def edit(change):
    """A change of the manifest."""

    def apply(entries):
        manifest = json.loads(entries["manifest.json"])
        change(manifest)
        entries["manifest.json"] = json.dumps(manifest).encode()

    return apply


def test_the_repacking_of_these_tests_changes_nothing_by_itself(path):
    repack(path)
    assert artifact.verify(path).blobs == BLOBS


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda e: e.pop("manifest.json") and None, "'manifest.json' is missing"),
        (lambda e: e.pop("constants.bin") is not None and None, "'constants.bin' is missing"),
        (lambda e: e.pop("code/k.o") and None, "'code/k.o' is missing or not listed"),
        (lambda e: e.update({"extra": b""}), "'extra' is missing or not listed"),
        (lambda e: e.update({"../../etc/passwd": b""}), "bad name"),
        (lambda e: e.update({"/etc/passwd": b""}), "bad name"),
        (lambda e: e.update({"manifest.json": b"{"}), "not JSON"),
        (lambda e: e.update({"manifest.json": b"[" * 100_000}), "not JSON"),
        (lambda e: e.update({"manifest.json": b"[]"}), "no format number"),
        (edit(lambda m: m.update(format=2)), "format is 2, this effcc reads 1; update effcc"),
        (edit(lambda m: m.update(format="1")), "no format number"),
        (edit(lambda m: m.update(entries=[])), "no valid 'entries'"),
        (edit(lambda m: m.pop("program")), "'program'"),
        (edit(lambda m: m["features"].append(3)), "'features'"),
        (edit(lambda m: m["constants"]["w"].update(bytes=1 << 60)), "damaged"),
        (edit(lambda m: m["constants"]["w"].update(offset=-64)), "'constants'"),
        (edit(lambda m: m["constants"]["w"].update(offset=3)), "'constants'"),
        (edit(lambda m: m["constants"]["w"].update(offset=1 << 70)), "damaged"),
        (edit(lambda m: m["entries"]["code/k.o"].update(bytes=1)), "damaged"),
    ],
)  # fmt: skip
def test_hostile_archives(path, change, message):
    repack(path, change)
    with pytest.raises(EffccError, match=message) as error:
        artifact.read(path)
    assert one_line(error)


def test_compressed_entries_are_refused_so_none_can_explode(path):
    repack(path, lambda e: e.update({"code/k.o": bytes(10_000_000)}), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(EffccError, match="compressed"):
        artifact.read(path)


def test_entries_that_lie_upon_another_are_refused(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first, second = archive.getinfo("code/k.o"), archive.getinfo("graph.effir")
    directory = data.index(b"PK\1\2")
    at = data.index(b"graph.effir", directory) - 46
    assert struct.unpack_from("<I", data, at + 42)[0] == second.header_offset
    struct.pack_into("<I", data, at + 42, first.header_offset)
    path.write_bytes(data)
    with pytest.raises(EffccError, match="lies outside the file or upon another"):
        artifact.read(path)


def test_a_lesser_machine_is_told_what_it_lacks(path, tmp_path):
    machine = replace(host(), features=host().features | {"amx-fp16", "sve2"})
    write(tmp_path / "greater", machine)
    with pytest.raises(
        EffccError, match="needs CPU features that this machine lacks: amx-fp16, sve2; compile"
    ) as error:
        artifact.read(tmp_path / "greater")
    assert one_line(error)
    artifact.read(tmp_path / "greater", machine)
    write(tmp_path / "other", replace(host(), architecture="riscv64"))
    with pytest.raises(EffccError, match="compiled for riscv64"):
        artifact.read(tmp_path / "other")


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path):
    """The limit on a process's files stands in for the disk's."""
    before = path.read_bytes()
    program = f"""
import resource, signal, sys
import numpy as np
from effcc import artifact
from effcc.errors import EffccError
from effcc.machine import host
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    weights = {{"w": np.zeros(1 << 20)}}
    artifact.write({str(path)!r}, backend="tvm", machine=host(), program=None, blobs={{}}, constants=weights)
except EffccError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == f"{path}: cannot write the artifact: File too large\n"
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_permissions_are_the_users_default(path):
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_names_that_no_reader_would_take_are_refused(tmp_path):
    for name in ("../x", "/x", "manifest.json", "constants.bin", "a//b", ""):
        with pytest.raises(ValueError):
            write(tmp_path / "x", blobs={name: b""})
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0 and not os.listdir(tmp_path)


def test_a_manifest_that_was_edited_is_refused(path):
    """Its own hash covers the launch program, which no other does; whoever puts that right as well is believed."""

    def change(manifest):
        manifest["program"]["steps"] = []

    repack(path, edit(change))
    with pytest.raises(EffccError, match=r"manifest.json is damaged"):
        artifact.read(path)

    def sign(entries):
        manifest = json.loads(entries["manifest.json"])
        del manifest["sha256"]
        entries["manifest.json"] = artifact.signed(manifest)

    repack(path, sign)
    assert artifact.read(path).program["steps"] == []


def test_every_byte_of_the_manifest_counts(path):
    """A changed number in it could make native code read or write elsewhere."""
    whole = path.read_bytes()
    start = whole.rindex(b'{"format"')
    end = whole.index(b"PK\1\2", start)
    for at in range(start, end, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(EffccError, match="manifest.json is damaged"):
            artifact.read(path)
