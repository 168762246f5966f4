"""A budget on the digits ViT: how many tokens may merge, then how many weights may go.

    python benchmarks/budget.py

Calibrates on images that the model was trained on (examples/digits/train.py splits them off), and asks that the program
that was found keeps the budget, at most two points below the unmodified model, on the held-back images too. Exit status
1 where it does not.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import effcc

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
POINTS = 0.02
SEARCHES = (("reduce_tokens", "tome:r=?"), ("sparsify", "magnitude:density=?"))


def calibration() -> dict[str, np.ndarray]:
    """The images that train.py trained on, with their labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    kept, _, kept_labels, _ = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    return {"image": kept, "labels": kept_labels}


def main() -> int:
    model, held = DIGITS / "digits_vit.onnx", np.load(DIGITS / "digits_test.npz")
    images, labels = held["images"], held["labels"]
    (logits,) = effcc.compile(str(model))(images)
    before = (logits.argmax(1) == labels).mean()
    print(f"held back: {len(labels)} images, the unmodified model gets {before:.2%}")
    chosen: dict[str, str] = {}
    missed = 0
    for category, text in SEARCHES:
        given = {**chosen, category: text}
        program = effcc.compile(str(model), budget=f"top1>=ref-{POINTS}", calibration=calibration(), **given)
        outcome = program.search
        print("\n".join(program.report().splitlines()[-len(outcome.trials) - 3 :]))
        after = (program(images)[0].argmax(1) == labels).mean()
        kept = after >= before - POINTS
        missed += not kept
        print(f"{text}: held back {after:.2%}, asked >= {before - POINTS:.2%}: {'kept' if kept else 'MISSED'}\n")
        if outcome.chosen is not None:
            chosen[category] = text.replace("?", f"{outcome.chosen:g}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
