"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from effcc.errors import InputError

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A model (.onnx, or IR text .effir).", show_default=False)]
Runnable = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A compiled .effcc, or a model to compile first.", show_default=False)
]
Source = Annotated[
    Path | None,
    typer.Option(metavar="MODEL", help="The model that an artifact was compiled from.", show_default=False),
]
Target = Annotated[str, typer.Option(help="What to compile for, as cpu or cpu{mcpu=skylake-avx512,threads=2}.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="NAME=SIZES",
        show_default=False,
        help="An input's shape: x=1x3x224x224, or with sizes that vary: x=Nx3x224x224,N=1..64. Repeatable.",
    ),
]
Values = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        metavar="NAME=NUMBERS",
        show_default=False,
        help="Contents of an input to compile for: sr=16000, sizes=1,3. The program refuses others. Repeatable.",
    ),
]
Pipeline = Annotated[
    str | None,
    typer.Option(
        "--passes",
        metavar="PIPELINE",
        help="Passes instead of the target's own: fold,simplify,fuse:max-ops=8.",
        show_default=False,
    ),
]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Threads of a run; all cores of the process by default.", show_default=False)
]
Schedule = Annotated[
    str | None,
    typer.Option(
        metavar="SCHEDULE",
        show_default=False,
        help='Of kernels: "barriers" between them, "tiles" without, or "auto": the faster, as measured.',
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
Calibration = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        show_default=False,
        help='Samples for passes that look at activations: an array for each input, first axis samples; "labels".',
    ),
]
BudgetText = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="METRIC>=BOUND",
        show_default=False,
        help="Search the option left open (tome:r=?): top1>=0.99, top1>=ref-0.01, agree, cosine, kl<=, max_error<=.",
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option("--search-minutes", min=0, help="Stop the search then, with the best found.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Of the random inputs.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        "-i",
        metavar="FILE",
        show_default=False,
        help="Inputs: an .npz with an array for each name, or name=FILE.npy. Repeatable.",
    ),
]


Sizes = Annotated[
    list[str] | None,
    typer.Option(
        "--size", metavar="NAME=N", show_default=False, help="A varying size of the random inputs: N=8. Repeatable."
    ),
]


def category_option(help: str) -> Any:
    return typer.Option(metavar="PASS", help=help, show_default=False)


Precision = Annotated[
    str | None, typer.Option("--precision", help="What products are multiplied in: fp32, bf16, auto (cuda: also fp16).")
]
Quantize = Annotated[str | None, category_option("A quantizing pass to insert, such as static-int8.")]
Sparsify = Annotated[str | None, category_option("A sparsifying pass to insert.")]
ReduceTokens = Annotated[str | None, category_option("A token-reducing pass to insert, such as tome:r=13.")]
Prune = Annotated[str | None, category_option("A pruning pass to insert.")]

_RANGE = re.compile(r"([A-Za-z_]\w*)=(\d+)\.\.(\d*)")
_SIZE = re.compile(r"\d+|[A-Za-z_]\w*|\?")


def parse_shapes(texts: list[str] | None) -> dict[str, tuple[Any, ...]] | None:
    """{input: sizes} of --shape options; a size is an integer, a Symbol, or None ("?": as the model says).

    >>> parse_shapes(["x=Nx3x8,N=1..64", "mask=N"])
    {'x': (N, 3, 8), 'mask': (N,)}
    >>> parse_shapes(["scalar="])
    {'scalar': ()}
    """
    if not texts:
        return None
    from effcc.ir.dims import Symbol

    sizes: dict[str, list[str]] = {}
    ranges: dict[str, tuple[int, int | None]] = {}
    for text in texts:
        for part in text.split(","):
            if found := _RANGE.fullmatch(part.strip()):
                low, high = int(found[2]), int(found[3]) if found[3] else None
                if high is not None and high < low:
                    raise InputError(f"the range {part.strip()} is empty", where=f"--shape {text}")
                ranges[found[1]] = low, high
                continue
            name, equals, value = part.strip().rpartition("=")
            listed = value.split("x") if value else []
            if not equals or not name or not all(_SIZE.fullmatch(size) for size in listed):
                raise InputError(
                    f"cannot read {part.strip()!r}",
                    where=f"--shape {text}",
                    hint="write NAME=1x3x224x224 or NAME=Nx3x224x224,N=1..64",
                )
            sizes[name] = listed
    used = {size for listed in sizes.values() for size in listed}
    if unused := set(ranges) - used:
        raise InputError(f"no size is called {min(unused)}", where="--shape", hint="name it in a shape: x=Nx8,N=1..64")

    def size(text: str) -> Any:
        if text == "?":
            return None
        return int(text) if text.isdigit() else Symbol(text, *ranges.get(text, (1, None)))

    return {name: tuple(map(size, listed)) for name, listed in sizes.items()}


def parse_values(texts: list[str] | None) -> dict[str, Any] | None:
    """{input: number, or list of numbers} of --value options.

    >>> parse_values(["sr=16000", "scales=1.0,2.0", "axes=1,"])
    {'sr': 16000, 'scales': [1.0, 2.0], 'axes': [1]}
    """
    values: dict[str, Any] = {}
    for text in texts or ():
        name, _, listed = text.rpartition("=")
        try:
            numbers = [float(n) if "." in n or "e" in n else int(n) for n in listed.split(",") if n.strip()]
        except ValueError:
            numbers = []
        if not name or not numbers:
            raise InputError(f"cannot read {text!r}", where="--value", hint="write NAME=16000 or NAME=1,3")
        values[name] = numbers if "," in listed else numbers[0]
    return values or None
