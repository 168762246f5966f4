"""effcc fuzz: a campaign of random graphs against the laws."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from effcc.cli.options import Json


def fuzz(
    minutes: Annotated[float, typer.Option(min=0.01, help="How long to test.")] = 1.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that test side by side.")] = 1,
    seed: Annotated[int, typer.Option(help="Of all random draws; the same seed goes on where it stopped.")] = 0,
    laws: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Which laws; all by default.", show_default=False)
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="cpu|cuda", help="What compiled code is for; cuda runs in Triton's interpreter.")
    ] = "cpu",
    passes: Annotated[
        str | None,
        typer.Option(metavar="PASS,PASS", help="Which passes; by default the target's, and all in other orders.",
                     show_default=False),
    ] = None,
    coverage: Annotated[
        bool, typer.Option("--coverage/--no-coverage", help="Keep tests that reach something new, and mutate them.")
    ] = True,
    ci: Annotated[bool, typer.Option("--ci", help="A fixed list of tests instead, as `make test` does.")] = False,
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

    from effcc.cli.show import progress
    from effcc.errors import InputError

    campaign = importlib.import_module("effcc.fuzz.campaign")
    broken = importlib.import_module("effcc.fuzz.malformed.campaign")
    subject = importlib.import_module("effcc.fuzz.recipe").Subject.of(target, passes)
    known = importlib.import_module("effcc.fuzz.laws").LAWS
    if replay is not None:
        _again(replay)
        return
    campaign = importlib.import_module("effcc.fuzz.campaign")
    broken = importlib.import_module("effcc.fuzz.malformed.campaign")
    known = importlib.import_module("effcc.fuzz.laws").LAWS
    chosen = list(known) if laws is None else laws.split(",")
    if unknown := [law for law in chosen if law not in known]:
        raise InputError(f"there is no law {unknown[0]!r}", where="--laws", hint=f"laws: {', '.join(known)}")
    with progress(quiet=as_json) as tell:
        if malformed is not None:
            total, found = broken.run(folder / "malformed", seed, jobs, malformed, tell)
        elif ci:
            total, found = campaign.ci(folder, chosen, subject, coverage)
        else:
            total, found = campaign.run(folder, seed, jobs, chosen, 60 * minutes, tell, subject, coverage)
    _report(total, found, as_json)
    if found:
        raise typer.Exit(1)


def _again(finding: Path) -> None:
    """Hold a saved finding against its law; what was a broken file has a .json beside it that says what was done."""
    import importlib

    from effcc.errors import EffccError, InputError

    if not finding.is_file():
        raise InputError("there is no such file", where=finding)
    graphs = importlib.import_module("effcc.fuzz.campaign")
    files = importlib.import_module("effcc.fuzz.malformed.campaign")
    try:
        (files if files.about(finding).is_file() else graphs).replay(finding)
    except (graphs.Finding, files.Broken) as failure:
        raise EffccError(f"still fails: {failure}", where=finding) from None
    print(f"{finding}: holds")


def _report(total: Any, found: list[Path], as_json: bool) -> None:
    import json

    from effcc.cli.show import print_json

    if as_json:
        print_json({**total.facts(), "findings": [str(path) for path in found]})
        return
    print(total)
    for path in found:
        beside = path.with_suffix(f"{path.suffix}.json")
        if beside.is_file():
            about = json.loads(beside.read_text())
            print(f"{path}: {about['kind']}: {about['message'].splitlines()[0]}")
        else:
            print(f"{path}: {path.read_text().splitlines()[0].removeprefix('# ')}")
