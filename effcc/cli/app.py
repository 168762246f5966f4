"""The table of commands. A command is a function whose parameters are its arguments and options (typer)."""

from __future__ import annotations

from typing import Annotated

import typer

from effcc.cli.bench import bench
from effcc.cli.bisect import bisect
from effcc.cli.cache import app as cache
from effcc.cli.compile import compile
from effcc.cli.doctor import doctor
from effcc.cli.explain import explain
from effcc.cli.fuzz import fuzz
from effcc.cli.inspect import inspect
from effcc.cli.ops import ops
from effcc.cli.opt import opt
from effcc.cli.passes import passes
from effcc.cli.run import run
from effcc.cli.verify import verify

app = typer.Typer(
    help="Compile trained neural networks into faster programs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from effcc import __version__

        print(f"effcc {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


MODELS, COMPILER, MACHINE = "Models", "The compiler", "This machine"
for function, panel in (
    (compile, MODELS),
    (run, MODELS),
    (verify, MODELS),
    (bench, MODELS),
    (inspect, MODELS),
    (opt, COMPILER),
    (explain, COMPILER),
    (bisect, COMPILER),
    (passes, COMPILER),
    (ops, COMPILER),
    (fuzz, COMPILER),
    (doctor, MACHINE),
):
    app.command(rich_help_panel=panel)(function)
app.add_typer(cache, name="cache", rich_help_panel=MACHINE)
