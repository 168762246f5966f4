import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from effcc.backends.tvm.entry import (
    Constant,
    Copy,
    Header,
    If,
    Input,
    Launch,
    LoadSize,
    Output,
    Program,
    Rebind,
    SetSize,
    Size,
    StoreSize,
    Temporary,
    While,
    ceildiv,
)  # fmt: skip
from effcc.backends.tvm.runtime import Executable
from effcc.errors import EffccError, InputError
from effcc.machine import host

objects = pytest.importorskip("effcc.backends.tvm.objects")
TILES = ceildiv("N", 16)


@pytest.fixture(scope="session")
def load(toys):
    """(program, kernels by name) -> Executable; in the program kernels are called by those names."""

    def make(program, threads=2, constants=None, **functions):
        kernels = objects.compile_kernels(list(functions.values()), host())
        symbols = dict(zip(functions, (kernel.symbol for kernel in kernels), strict=True))
        images = {kernel.symbol: kernel.object for kernel in kernels}
        program = _renamed(program, symbols)
        return Executable(program, list(images.values()), objects.compile_driver("x86_64"), constants, threads=threads)

    return make


def _renamed(value, symbols):
    from dataclasses import fields, is_dataclass, replace

    if isinstance(value, Launch):
        return replace(value, kernel=symbols[value.kernel])
    if isinstance(value, tuple):
        return tuple(_renamed(item, symbols) for item in value)
    if is_dataclass(value):
        return type(value)(**{f.name: _renamed(getattr(value, f.name), symbols) for f in fields(value)})
    return value


X, Y = Input("x", "f32", ("N",)), Output("y", "f32", ("N",))


def launch(kernel, x, y, **options):
    return Launch(kernel, (x, y), ("N",), tiles=TILES, **options)


def two_steps(work=10**6):
    return Program(
        sizes=("N",), inputs=(X,), outputs=(Y,), temporaries=(Temporary("t", ("mul", "N", 4)),),
        steps=(launch("one", "x", "t", work=work), launch("two", "t", "y", work=work)),
    )  # fmt: skip


@pytest.fixture(scope="session")
def plus_three(load, toys):
    return load(two_steps(), one=toys.add("one", 1.0), two=toys.add("two", 2.0))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 1000, 100_000])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_launches_follow_one_another(plus_three, n, threads):
    x = np.arange(n, dtype="f4")
    (y,) = plus_three(x, threads=threads)
    assert y.dtype == np.float32 and y.ctypes.data % 64 == 0
    np.testing.assert_array_equal(y, x + 3)


def test_torch_in_torch_out(plus_three):
    torch = pytest.importorskip("torch")
    x = torch.arange(100, dtype=torch.float32)
    (y,) = plus_three(x)
    assert isinstance(y, torch.Tensor) and torch.equal(y, x + 3)


def test_dlpack_in_numpy_out(plus_three):
    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    (y,) = plus_three(Foreign(np.ones(20, "f4")))
    np.testing.assert_array_equal(y, np.full(20, 4, "f4"))


def test_misaligned_and_strided_inputs(plus_three):
    torch = pytest.importorskip("torch")
    base = np.arange(201, dtype="f4")
    for x in (base[1:], base[::2], base[::-1], np.broadcast_to(base[:1], 40)):
        np.testing.assert_array_equal(plus_three(x)[0], x + 3)
    for x in (torch.from_numpy(base)[3:], torch.from_numpy(base)[::2], torch.ones(1).expand(40)):
        assert torch.equal(plus_three(x)[0], x + 3)


def test_inputs_that_do_not_fit_are_refused_by_name(plus_three, load, toys):
    with pytest.raises(InputError, match=r"input 'x': expected f32\[N\], got f64\[3\]"):
        plus_three(np.zeros(3))
    with pytest.raises(InputError, match=r"got f32\[2,3\]"):
        plus_three(np.zeros((2, 3), "f4"))
    with pytest.raises(InputError, match="takes 1 inputs, not 2"):
        plus_three(np.zeros(3, "f4"), np.zeros(3, "f4"))
    square = Program(
        sizes=(Size("N", 1, 8),), inputs=(Input("x", "f32", ("N", ("add", "N", 1))),), outputs=(Y,),
        steps=(launch("one", "x", "y"),),
    )  # fmt: skip
    run = load(square, one=toys.add("one"))
    run(np.zeros((8, 9), "f4"))
    with pytest.raises(InputError, match=r"expected f32\[N,\(N \+ 1\)\], got f32\[2,2\]"):
        run(np.zeros((2, 2), "f4"))
    with pytest.raises(InputError, match="at most 8"):
        run(np.zeros((9, 10), "f4"))


def test_foreign_byte_order_is_refused(plus_three):
    with pytest.raises(InputError, match=r"expected f32\[N\], got >f4\[3\]"):
        plus_three(np.zeros(3, ">f4"))


def test_arrays_that_must_not_change_are_not_overwritten(load, toys):
    torch = pytest.importorskip("torch")
    program = Program(
        sizes=("N",), inputs=(Input("x", "f32", ("N",), overwritten=True),),
        outputs=(Output("y", "f32", ("N",), alias="x"),), steps=(launch("one", "x", "x"),),
    )  # fmt: skip
    run = load(program, one=toys.add("one"))
    fixed = np.zeros(4, "f4")
    fixed.flags.writeable = False
    for x in (fixed, torch.zeros(4, requires_grad=True)):
        with pytest.raises(InputError, match="input 'x': the program writes into it"):
            run(x)
    with torch.no_grad():
        assert run(torch.zeros(4, requires_grad=True))[0].sum() == 4


def test_profile(load, toys):
    loop = While(("less", "i", 50), (launch("two", "x", "y"), SetSize("i", ("add", "i", 1))))
    program = Program(sizes=("N",), inputs=(X,), outputs=(Y,), steps=(
        SetSize("i", 0), launch("one", "x", "y", label="once"), loop))  # fmt: skip
    run = load(program, one=toys.add("one"), two=toys.add("two"))
    (once, first), (_, rounds) = run.profile(np.zeros(100_000, "f4"))
    assert once == "once" and 0 < first < rounds
    run(np.zeros(8, "f4"))
    assert run._contexts[-1].table[Header.profile] == 0


def test_empty_arrays(plus_three):
    torch = pytest.importorskip("torch")
    for x in (
        np.zeros(0, "f4"),
        np.zeros(9, "f4")[9:],
        np.zeros((4, 0), "f4")[1],
        torch.zeros(0),
        torch.zeros(4, 0)[1],
    ):
        assert tuple(plus_three(x)[0].shape) == (0,)


def test_an_interpreter_that_ends_at_once_ends_well(toys, tmp_path):
    """Workers may still be spinning in the driver when everything is torn down."""
    (kernel,) = objects.compile_kernels([toys.add("one")], host())
    (tmp_path / "0.o").write_bytes(kernel.object)
    (tmp_path / "driver.o").write_bytes(objects.compile_driver("x86_64"))
    program = f"""
import sys
from pathlib import Path
import numpy as np
from effcc.backends.tvm.entry import *
from effcc.backends.tvm.runtime import Executable
program = Program(inputs=(Input("x", "f32", (160,)),), outputs=(Output("y", "f32", (160,)),),
                  steps=(Launch({kernel.symbol!r}, ("x", "y"), (160,), tiles=10),))
images = [Path(sys.argv[1], name).read_bytes() for name in ("0.o", "driver.o")]
run = Executable(program, images[:1], images[1], threads=8)
run._driver.set_spin(1 << 40)
run(np.zeros(160, "f4"))
"""
    for _ in range(3):
        subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=60)


def test_constants_are_used_where_they_lie(load, toys):
    program = Program(sizes=("N",), inputs=(Input("N", "size"),), outputs=(Y,), constants=(Constant("c", "weights"),),
                      steps=(launch("one", "c", "y"),))  # fmt: skip
    from effcc.backends.tvm.runtime.arrays import aligned_memory

    weights = aligned_memory(400).view("f4")
    weights[:] = 5
    run = load(program, constants={"weights": weights}, one=toys.add("one"))
    np.testing.assert_array_equal(run(100)[0], np.full(100, 6, "f4"))
    weights[:] = 7
    np.testing.assert_array_equal(run(100)[0], np.full(100, 8, "f4"))
    with pytest.raises(EffccError, match="constant 'weights'"):
        load(program, constants={}, one=toys.add("one"))


def test_an_output_can_be_an_inputs_own_array(load, toys):
    program = Program(
        sizes=("N",), inputs=(Input("x", "f32", ("N",), overwritten=True),),
        outputs=(Output("y", "f32", ("N",), alias="x"), Output("z", "f32", ("N",))),
        steps=(launch("one", "x", "x"), launch("one", "x", "z")),
    )  # fmt: skip
    run = load(program, one=toys.add("one"))
    for x in (np.zeros(64, "f4"), np.zeros(65, "f4")[1:], np.zeros(128, "f4")[::2]):
        y, z = run(x)
        assert y is x
        np.testing.assert_array_equal(x, np.ones(64, "f4"))
        np.testing.assert_array_equal(z, np.full(64, 2, "f4"))


def test_a_failing_kernel_stops_the_program_and_is_named(load, toys):
    program = Program(
        sizes=("N",), inputs=(X,), outputs=(Y,),
        steps=(Launch("check", ("x",), tiles="N", label="/layers/gather"), launch("one", "x", "y")),
    )  # fmt: skip
    run = load(program, check=toys.limit("check"), one=toys.add("one"))
    good, bad = np.zeros(1000, "f4"), np.zeros(1000, "f4")
    bad[777] = 11
    for threads in (1, 2):
        run(good, threads=threads)
        with pytest.raises(EffccError, match="/layers/gather: a kernel stopped with code -1"):
            run(bad, threads=threads)
    np.testing.assert_array_equal(run(good)[0], good + 1)


def test_an_object_that_calls_what_is_not_there_is_refused_on_loading(load, toys):
    program = Program(inputs=(Input("x", "f32", (1,)),), steps=(Launch("lost", ("x",)),))
    with pytest.raises(EffccError, match="cannot be loaded: .*materialize") as error:
        load(program, lost=toys.lost("lost"))
    assert "\n" not in str(error.value)


def test_each_thread_has_its_own_scratch(load, toys):
    program = Program(sizes=("N",), inputs=(X,), outputs=(Y,), scratch=(64,),
                      steps=(Launch("double", ("x", "y"), tiles=TILES),))  # fmt: skip
    run = load(program, double=toys.scratch("double"))
    x = np.arange(16 * 5000, dtype="f4")
    for _ in range(20):
        np.testing.assert_array_equal(run(x, threads=4)[0], 2 * x)


def test_workers_take_their_share(load, toys):
    """Both threads leave traces in their scratch: at most after a few calls, however busy the machine is."""
    program = Program(sizes=("N",), inputs=(X,), outputs=(Y,), scratch=(64,),
                      steps=(Launch("double", ("x", "y"), tiles=TILES),))  # fmt: skip
    run = load(program, double=toys.scratch("double"))
    x = np.ones(16 * 100_000, "f4")
    for _ in range(200):
        run(x, threads=2)
        if run._contexts[0]._scratch.view("f4").reshape(2, 16).all():
            break
    else:
        pytest.fail("only one thread ever worked")


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_every_tile_of_every_launch_runs_once(load, toys, threads):
    """Launches too short for workers to keep up: they come late, leave late, sleep, wake; no tile is lost."""
    program = Program(
        inputs=(Input("x", "f32", (80,), overwritten=True), Input("trips", "i64")),
        outputs=(Output("y", "f32", (80,), alias="x"),),
        steps=(
            LoadSize("T", "trips"),
            SetSize("i", 0),
            While(
                ("less", "i", "T"),
                (
                    Launch("one", ("x", "x"), (80,), tiles=5),
                    Launch("one", ("x", "x"), (80,), tiles=5, work=0),
                    SetSize("i", ("add", "i", 1)),
                ),
            ),
        ),
    )
    run = load(program, one=toys.add("one"))
    for trips in (20_000, 1, 2, 20_000):
        (y,) = run(np.zeros(80, "f4"), np.array(trips), threads=threads)
        np.testing.assert_array_equal(y, np.full(80, 2 * trips, "f4"))


def test_sizes_found_at_run_time(load, toys):
    found = Output("y", "f32", ("K",), bound=("N",))
    program = Program(
        sizes=("N",), inputs=(X,), outputs=(found,),
        steps=(
            Launch("count", ("&K",), ("N",)),
            SetSize("M", ("add", "K", 0)),
            Launch("one", ("x", "y"), ("M",), tiles=ceildiv("M", 16)),
        ),
    )  # fmt: skip
    run = load(program, count=toys.count("count"), one=toys.add("one"))
    torch = pytest.importorskip("torch")
    x = np.arange(101, dtype="f4")
    np.testing.assert_array_equal(run(x)[0], x[:50] + 1)
    assert torch.equal(run(torch.from_numpy(x))[0], torch.from_numpy(x)[:50] + 1)


def test_loops_and_branches(load, toys):
    """y = x + trips, but x + 100 if there are none; values carried by rebinding, in both parities."""
    program = Program(
        sizes=("N",),
        inputs=(X, Input("trips", "i64"), Input("go", "bool")),
        outputs=(Y, Output("count", "i64")),
        temporaries=(Temporary("a", ("mul", "N", 4)), Temporary("b", ("mul", "N", 4), above=("a",))),
        steps=(
            LoadSize("T", "trips"),
            LoadSize("G", "go", "bool"),
            SetSize("i", 0),
            Copy("a", "x", ("mul", "N", 4)),
            While(
                ("mul", ("less", "i", "T"), "G"),
                (
                    launch("one", "a", "b"),
                    Rebind(("a", "b"), ("b", "a")),
                    SetSize("i", ("add", "i", 1)),
                ),
            ),
            If("i", (Copy("y", "a", ("mul", "N", 4)),), (launch("hundred", "x", "y"),)),
            StoreSize("count", "i"),
        ),
    )
    run = load(program, one=toys.add("one"), hundred=toys.add("hundred", 100.0))
    x = np.arange(50, dtype="f4")
    for trips, go, times in ((0, True, 100), (1, True, 1), (2, True, 2), (7, True, 7), (5, False, 100)):
        y, count = run(x, np.array(trips), np.array(go))
        np.testing.assert_array_equal(y, x + times)
        assert count == (times if times < 100 else 0)


@pytest.mark.parametrize("a", [-7, -1, 0, 1, 7])
@pytest.mark.parametrize("b", [-3, -1, 2, 5])
def test_arithmetic_at_run_time_is_pythons(load, a, b):
    from effcc.backends.tvm.entry import OPERATORS, evaluate

    program = Program(
        inputs=(Input("a", "i64"), Input("b", "i64")),
        outputs=tuple(Output(operator, "i64") for operator in OPERATORS),
        steps=(LoadSize("A", "a"), LoadSize("B", "b"), *(StoreSize(name, (name, "A", "B")) for name in OPERATORS)),
    )
    results = load(program)(np.array(a), np.array(b))
    assert [int(r) for r in results] == [evaluate((name, a, b), {}) for name in OPERATORS]


def test_dividing_by_zero_is_an_error(load):
    program = Program(inputs=(Input("a", "i64"),), outputs=(Output("y", "i64"),),
                      steps=(LoadSize("A", "a"), StoreSize("y", ("mod", 1, "A"))))  # fmt: skip
    with pytest.raises(EffccError, match="divides by zero"):
        load(program)(np.array(0))


def test_calls_from_many_threads(plus_three):
    failures = []

    def call(seed):
        random = np.random.default_rng(seed)
        for n in (16, 1000, 30_000) * 15:
            x = random.integers(0, 1000, n).astype("f4")  # sums are exact
            if not np.array_equal(plus_three(x, threads=1 + seed % 3)[0], x + 3):
                failures.append((seed, n))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_interleaved_with_torchs_threads(plus_three):
    torch = pytest.importorskip("torch")
    a, x = torch.randn(300, 300), torch.arange(100_000.0)
    expected = a @ a
    for _ in range(30):
        (y,) = plus_three(x)
        assert torch.equal(y, x + 3) and torch.allclose(a @ a, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes_with_threads_of_its_own(plus_three):
    x = np.arange(100_000, dtype="f4")
    plus_three(x)
    assert plus_three._driver.threads() >= 2
    child = os.fork()
    if child == 0:
        inherited = plus_three._driver.threads()
        right = np.array_equal(plus_three(x, threads=2)[0], x + 3)
        os._exit(0 if right and inherited == 1 and plus_three._driver.threads() == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(plus_three(x)[0], x + 3)


def test_idle_workers_sleep(plus_three):
    """After a call, the process burns (next to) no CPU time: the workers' spinning is bounded."""
    import time

    plus_three(np.zeros(100_000, "f4"))
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


def test_running_imports_neither_the_compiler_nor_torch(load, toys, tmp_path):
    """A fresh process loads and runs a program; ORC must find every symbol without TVM's compiler."""
    kernels = objects.compile_kernels([toys.add("one"), toys.limit("check")], host())
    for i, kernel in enumerate(kernels):
        (tmp_path / f"{i}.o").write_bytes(kernel.object)
    (tmp_path / "driver.o").write_bytes(objects.compile_driver("x86_64"))
    program = f"""
import sys
from pathlib import Path
import numpy as np
from effcc.backends.tvm.entry import *
from effcc.backends.tvm.runtime import Executable
program = Program(sizes=("N",), inputs=(Input("x", "f32", ("N",)),), outputs=(Output("y", "f32", ("N",)),), steps=(
    Launch({kernels[1].symbol!r}, ("x",), tiles="N"),
    Launch({kernels[0].symbol!r}, ("x", "y"), ("N",), tiles=ceildiv("N", 16)),
))
images = [Path(sys.argv[1], name).read_bytes() for name in ("0.o", "1.o", "driver.o")]
run = Executable(program, images[:2], images[2], threads=2)
x = np.arange(10, dtype="f4")
assert (run(x)[0] == x + 1).all()
try:
    run(x + 5)
except Exception as error:
    assert type(error).__name__ == "EffccError", error
else:
    raise SystemExit("no error")
assert not {{"torch", "tvm"}} & set(sys.modules), sorted(sys.modules)
import torch
(y,) = run(torch.ones(8))
assert isinstance(y, torch.Tensor) and (y == 2).all()
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
