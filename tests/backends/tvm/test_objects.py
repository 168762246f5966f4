import threading
import time
from dataclasses import replace

import pytest

from effcc.backends.tvm.cache import ObjectCache
from effcc.errors import EffccError
from effcc.machine import Machine, host, parse

objects = pytest.importorskip("effcc.backends.tvm.objects")


def test_equal_kernels_share_one_object_whatever_their_names(toys, tmp_path):
    cache = ObjectCache(tmp_path)
    a, b, c = objects.compile_kernels([toys.add("a"), toys.add("b"), toys.add("c", 2.0)], host(), cache=cache)
    assert a == b and a.object == b.object
    assert c.symbol != a.symbol
    assert cache.state().entries == 2


def test_the_second_compile_comes_from_the_cache(toys, tmp_path, monkeypatch):
    cache = ObjectCache(tmp_path)
    first = objects.compile_kernels([toys.add("a")], host(), cache=cache)
    monkeypatch.setattr(objects, "compile_together", lambda *_: pytest.fail("compiled again"))
    assert objects.compile_kernels([toys.add("a")], host(), cache=cache) == first


@pytest.mark.parametrize(
    "change", [{"architecture": "aarch64", "features": frozenset()}, {"features": frozenset(("sse2",))}]
)
def test_the_target_is_part_of_the_key(toys, tmp_path, change):
    machine = Machine("x86_64", "mine", frozenset(("sse2", "ssse3")))
    machines = (machine, replace(machine, **change), replace(machine, mcpu="yours", cores=9))
    cache = ObjectCache(tmp_path)
    a, b, c = (objects.compile_kernels([toys.add("a")], m, cache=cache)[0] for m in machines)
    assert a.symbol != b.symbol
    assert a == c  # neither names nor cores change the code


def test_compiling_is_reproducible(toys):
    first, second = (objects.compile_kernel(toys.add("a"), "effcc_same", host()) for _ in range(2))
    assert first == second


def test_kernels_compiled_together_are_as_if_each_were_alone(toys):
    functions = {"effcc_a": toys.add("a"), "effcc_b": toys.limit("b"), "effcc_c": toys.add("c", 2.0)}
    together = dict(objects.compile_together(functions, host()))
    assert together == {s: objects.compile_kernel(f, s, host()) for s, f in functions.items()}


def test_what_compiled_before_a_failure_is_kept(toys, tmp_path):
    import tvm

    cache = ObjectCache(tmp_path)
    good = toys.add("good")
    bad = tvm.tirx.PrimFunc(list(good.params)[:-1], good.body, good.ret_type, attrs=good.attrs)
    with pytest.raises(EffccError):
        objects.compile_kernels([good, bad], host(), cache=cache, threads=1)
    assert cache.state().entries == 1


def test_unknown_processors_are_refused():
    with pytest.raises(EffccError, match="no code for riscv64 processors; compile for x86_64 or aarch64"):
        objects.compile_driver("riscv64")


def test_a_kernel_with_another_signature_is_named(toys):
    import tvm

    function = toys.add("odd")
    swapped = tvm.tirx.PrimFunc(list(function.params)[:-1], function.body, function.ret_type, attrs=function.attrs)
    with pytest.raises(EffccError, match=r"kernel odd: .*are not \(pointers"):
        objects.compile_kernel(swapped, "effcc_odd", host())


def test_objects_are_free_of_debug_information_and_of_symbols_to_collide(toys):
    object_file = objects.compile_kernel(toys.add("a"), "effcc_x", host())
    assert b".debug" not in object_file and b"__tvm_ffi_main" not in object_file and b"__truncsfhf2" not in object_file


def test_for_another_architecture(toys):
    machine = Machine("aarch64", "generic", frozenset(("neon",)))
    assert objects.compile_kernel(toys.add("a"), "effcc_x", machine)[18:20] == b"\xb7\x00"  # e_machine: AArch64
    assert objects.compile_driver("aarch64")[18:20] == b"\xb7\x00"


@pytest.mark.parametrize("target", ["cpu", "cpu{mcpu=znver3}", "cpu{mcpu=neoverse-n1}"])
def test_vectors_leave_the_registers_without_a_call(target):
    """The call that stands for it becomes a line of assembly without instructions."""
    from effcc.backends.tvm.emit import KernelBuilder
    from effcc.backends.tvm.templates.micro_kernel import leave_registers

    function = KernelBuilder("toy", 128).build([], [], lambda kernel: leave_registers())
    object_file = objects.compile_kernel(function, "effcc_x", parse(target))
    assert b"leave_registers" not in object_file


def test_compiling_lets_other_python_threads_run():
    """The compiler must not hold the interpreter's lock: count while another thread compiles."""
    text = objects.driver_text(host().architecture)
    counts, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counts[0] += 1
            time.sleep(0)

    counter = threading.Thread(target=count)
    counter.start()
    before = counts[0]
    objects._assemble(text)
    during = counts[0] - before
    done.set()
    counter.join()
    assert during > 100
