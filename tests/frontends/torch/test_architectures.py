"""A few of the architectures of benchmarks/architectures.py through torch.compile on the CPU, by the table's checks;
generation with a cache that is updated in place. `benchmarks/architectures_table.py` runs all of them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture(scope="module")
def table() -> Any:
    """The script as a module; it imports its list by name."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("architectures_table", BENCHMARKS / "architectures_table.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize("name", ["convnext", "bert", "gpt2", "t5", "qwen3_moe"])
def test_an_architecture_compiles_and_equals_eager(name: str, table: Any) -> None:
    row = table.check(table.ARCHITECTURES[name], {"target": "cpu"})
    assert row.status == "ok", f"{row.status} (error {row.error:.1e}, torch {row.torch_error:.1e})"


def test_the_page_shows_each_result(table: Any) -> None:
    bert = table.Row("bert", "encoder", error=3e-7, torch_error=2e-7, onnx="ok")
    rows = [bert, table.Row("xlm", "encoder", "KeyError: a|b")]
    page = table.table(rows)
    assert "1 of 2 small random models" in page
    assert "| bert | encoder | ok | 3.0e-07 | 2.0e-07 | ok |" in page and "KeyError: a\\|b" in page


def test_generation_updates_a_static_cache_in_place(table: Any) -> None:
    from transformers import StaticCache

    torch._dynamo.reset()
    module, inputs = table.ARCHITECTURES["llama"].build()
    prompt = inputs["input_ids"][:, :6]
    compiled = torch.compile(module, backend="effcc", fullgraph=True)

    def generate(step: Any) -> tuple[list[torch.Tensor], Any]:
        cache = StaticCache(config=module.config, max_cache_len=16)
        out = module(input_ids=prompt, past_key_values=cache, use_cache=True)
        logits = [out.logits[:, -1:]]
        for k in range(3):
            position = torch.full((2, 1), prompt.shape[1] + k)
            out = step(input_ids=logits[-1].argmax(-1), past_key_values=cache, use_cache=True, position_ids=position)
            logits.append(out.logits)
        return logits, cache

    with torch.no_grad():
        ours, my_cache = generate(compiled)
        theirs, their_cache = generate(module)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for mine, other in zip(my_cache.layers, their_cache.layers, strict=True):
        torch.testing.assert_close(mine.keys, other.keys, rtol=1e-4, atol=1e-5)
