"""effcc fuzz: a campaign of random graphs against the laws."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effcc.cli.options import Json


def fuzz(
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to test.")] = 1.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that test side by side.")] = 1,
    seed: Annotated[int, typer.Option(help="Of all random draws; the same seed goes on where it stopped.")] = 0,
    laws: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Which laws; all by default.", show_default=False)
    ] = None,
    malformed: Annotated[
        int | None,
        typer.Option(min=1, metavar="FILES", help="Test readers on so many broken files instead.", show_default=False),
    ] = None,
    folder: Annotated[Path, typer.Option(help="Where findings and progress are kept.")] = Path("fuzz-findings"),
    replay: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Only test a saved finding again.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw random graphs, hold them against the laws, and save what fails as small .effir files."""
    import importlib

    from effcc.cli.show import print_json, progress
    from effcc.errors import EffccError, InputError

    campaign = importlib.import_module("effcc.fuzz.campaign")
    known = importlib.import_module("effcc.fuzz.laws").LAWS
    if replay is not None:
        if not replay.is_file():
            raise InputError("there is no such file", where=replay)
        try:
            campaign.replay(replay)
        except campaign.Finding as finding:
            raise EffccError(f"still fails: {finding}", where=replay) from None
        print(f"{replay}: holds")
        return
    chosen = list(known) if laws is None else laws.split(",")
    if unknown := [law for law in chosen if law not in known]:
        raise InputError(f"there is no law {unknown[0]!r}", where="--laws", hint=f"laws: {', '.join(known)}")
    with progress(quiet=as_json) as tell:
        total, found = campaign.run(folder, seed, jobs, chosen, 60 * minutes, tell)
    if as_json:
        print_json({**total.facts(), "findings": [str(path) for path in found]})
    else:
        print(total)
        for path in found:
            print(f"{path}: {path.read_text().splitlines()[0].removeprefix('# ')}")
    if found:
        raise typer.Exit(1)
