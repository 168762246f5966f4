import numpy as np
import pytest

import effcc
from effcc import report
from effcc.ir import Builder, Symbol, Tensor, f32


@pytest.fixture(scope="module")
def program():
    b = Builder("two")
    x = b.input("x", Tensor(f32, (Symbol("N", 1, 512), 64)))
    w = b.const(np.ones((64, 64), "f4"))
    y = b.relu(b.matmul(x, w))
    return effcc.compile(b.graph(b.neg(b.neg(b.matmul(y, w)))))


def test_facts_follow_the_sizes(program):
    one, many = report.facts(program), report.facts(program, {"N": 100})
    assert one["sizes"] == {"N": 1} and many["sizes"] == {"N": 100}
    assert many["flops"] == 100 * one["flops"] >= 100 * 2 * 2 * 64 * 64
    assert many["bytes"] >= 4 * 2 * 64 * 64 + 100 * 4 * 2 * 64
    m = many["memory"]
    assert m["peak"] >= m["lower_bound"] >= 100 * 64 * 4 and m["constants"] >= 64 * 64 * 4


def test_rules_are_counted_by_pass(program):
    found = report.facts(program)
    assert [p["pass"] for p in found["passes"]] == [e.text for e in program.times.entries]
    assert sum(sum(p["rules"].values()) for p in found["passes"]) == len(found["log"]) > 0
    first = next(p for p in found["passes"] if p["pass"] == "simplify")
    assert sum(first["rules"].values()) == 1, first  # neg(neg(x))


def test_templates_sum_up_the_kernels(program):
    found = report.facts(program)
    assert sum(t["launches"] for t in found["templates"].values()) == len(found["kernels"]) == len(program.launches)
    assert sum(t["flops"] for t in found["templates"].values()) == found["flops"]


def test_text(program):
    text = program.report()
    assert text.startswith("@two for cpu: 5 ops imported") and "x: f32[N,64]" in text and "lower bound" in text


def test_sizes_found_at_run_time_count_with_their_bound():
    n, k = Symbol("N", 1, 8), Symbol("K", 0, 40)
    assert report.at(n * 3 + k, {"N": 2}) == 46
    assert report.at(Symbol("M", 2), {}) == 2
