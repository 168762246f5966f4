import dataclasses
import subprocess
import sys

import pytest

from effcc.errors import EffccError
from effcc.machine import _DECLARED, Machine, available_cores, host, parse


def test_the_host_has_what_every_cpu_of_its_kind_has():
    machine = host()
    assert machine.features >= ({"sse2"} if machine.architecture == "x86_64" else {"neon"})
    assert machine.cores == available_cores() >= 1
    assert 0 < machine.l1 <= machine.l2
    assert machine.vector_bits in (128, 256, 512)


@pytest.mark.skipif(sys.platform != "linux", reason="affinity")
def test_cores_are_those_that_the_process_may_use():
    program = "import os; os.sched_setaffinity(0, {0}); from effcc.machine import host; print(host().cores)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"


def test_targets():
    assert parse("cpu") == host()
    assert parse(" cpu{threads=3} ") == dataclasses.replace(host(), cores=3)
    machine = parse("cpu{threads=2, mcpu=skylake-avx512, l2=2m}")
    assert (machine.mcpu, machine.cores, machine.vector_bits, machine.l2) == ("skylake-avx512", 2, 512, 2 << 20)
    assert machine.has("avx512f", "fma") and not machine.has("avx512bf16")
    assert str(machine) == "cpu{mcpu=skylake-avx512,threads=2}"
    assert parse("cpu{mcpu=haswell}").vector_bits == 256
    assert parse("cpu{mcpu=neoverse-n1}").architecture == "aarch64"


def test_features_are_added_and_removed_with_what_implies_them():
    machine = parse("cpu{mcpu=sapphirerapids,without=avx512f+amx-tile,with=sse2}")
    assert machine.vector_bits == 256 and machine.llvm_cpu == "x86-64-v3"
    assert not any(name.startswith(("avx512", "amx")) for name in machine.features)
    assert parse("cpu{mcpu=haswell,with=avxvnni}").has("avxvnni", "avx2")


@pytest.mark.parametrize(
    "text, message",
    [
        ("gpu", "unknown target 'gpu'; write cpu"),
        ("cpu{mcpu=8086}", "unknown CPU '8086'; known are native, x86-64"),
        ("cpu{threads=0}", "'0' is not a positive number"),
        ("cpu{threads}", "'threads' has no value"),
        ("cpu{turbo=1}", "unknown target option 'turbo'"),
        ("cpu{with=avx1024}", "unknown CPU feature 'avx1024'"),
        ("cpu{", "unknown target"),
    ],
)
def test_what_is_wrong_with_a_target(text, message):
    with pytest.raises(EffccError) as error:
        parse(text)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", _DECLARED)
def test_llvm_understands_every_declared_cpu(name):
    tvm = pytest.importorskip("tvm")
    machine = parse(f"cpu{{mcpu={name}}}")
    from effcc.backends.tvm.objects import llvm_target

    known = tvm.get_global_func("target.llvm_get_cpu_features")(llvm_target(machine))
    assert machine.features <= set(known)


def test_what_a_machine_lacks():
    assert Machine(features=frozenset(("avx2",))).missing(["fma", "avx2", "amx-int8"]) == ("amx-int8", "fma")


def test_importing_takes_no_numpy():
    program = "import sys, effcc.machine; print({'numpy', 'torch', 'tvm'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "set()\n"


def test_zen_4_splits_long_vectors():
    from effcc.backends.tvm.contractions import cpu_of

    assert parse("cpu{mcpu=znver4}").split_vectors and not parse("cpu{mcpu=znver5}").split_vectors
    assert not parse("cpu{mcpu=icelake-server}").split_vectors
    assert not cpu_of(parse("cpu{mcpu=znver4,without=avx512f}")).split_vectors  # (whose vectors are whole)
