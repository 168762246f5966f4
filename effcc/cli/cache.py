"""effcc cache: the folder of compiled kernels, shared by all programs and processes of a user."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from effcc.cli.options import Json

app = typer.Typer(help="Show, limit or clear the cache of compiled kernels.", no_args_is_help=True)


def cache_module() -> Any:
    return import_module(import_module("effcc.backends").CACHE)


def object_cache() -> Any:
    """The cache of the backend for this machine's CPU."""
    return cache_module().default_cache()


@app.command()
def show(as_json: Json = False) -> None:
    """Where the cache is, what it holds and how large it may become."""
    from effcc.cli.show import print_json
    from effcc.report import size

    state = object_cache().state()
    facts = {"folder": str(state.folder), "entries": state.entries, "bytes": state.bytes, "limit": state.limit}
    if as_json:
        print_json(facts)
    else:
        print(f"{state.folder}: {state.entries} kernels, {size(state.bytes)} of at most {size(state.limit)}")


@app.command()
def limit(size: Annotated[str, typer.Argument(help="Such as 500m or 2g.")]) -> None:
    """Set how large the cache may become; the kernels unused for longest go first."""
    object_cache().set_limit(cache_module().parse_size(size))
    show()


@app.command()
def clear() -> None:
    """Delete every kernel in the cache."""
    print(f"{object_cache().clear()} kernels deleted")
