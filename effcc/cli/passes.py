"""effcc passes: what may stand in a pipeline."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from effcc.cli.options import Json


def passes(
    name: Annotated[str | None, typer.Argument(help="One pass, with its options.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the passes, with category, contract, options and where each method comes from."""
    import sys

    from effcc.cli.show import print_json, print_table
    from effcc.errors import EffccError
    from effcc.pipeline import find_pass, pass_table

    found, broken = [], []
    for one in [name] if name else sorted(pass_table()):
        try:
            found.append(describe(find_pass(one)))
        except EffccError as error:
            if name:
                raise
            broken.append(str(error))
    if as_json:
        print_json(found)
    elif name:
        print(text(found[0]))
    else:
        rows = [
            (p["name"], p["category"], p["contract"], ":".join(p["options"]), p["summary"], p["source"]) for p in found
        ]
        print_table("", ("pass", "category", "contract", "options", "what it does", "source"), rows)
    for line in broken:
        print(f"problem: {line}", file=sys.stderr)


def describe(cls: type) -> dict[str, object]:
    """What a pass class says about itself."""
    import dataclasses

    doc = (cls.__doc__ or "").strip()
    options = {f.name.replace("_", "-"): {"type": str(f.type), "default": _default(f)} for f in dataclasses.fields(cls)}
    rules = [{"name": r.name, "doc": " ".join((type(r).__doc__ or "").split())} for r in getattr(cls, "rules", ())]
    return {
        "name": cls.name,
        "category": cls.category,
        "contract": cls.contract,
        "source": cls.source,
        "options": options,
        "searchable": {
            name.replace("_", "-"): {"gentlest": r.gentlest, "strongest": r.strongest, "step": r.step}
            for name, r in cls.searchable.items()
        },
        "summary": doc.split("\n\n")[0].replace("\n", " "),
        "doc": doc,
        "rules": rules,
        "place": f"{cls.__module__}:{cls.__qualname__}",
    }


def _default(f: Any) -> object:
    import dataclasses

    if f.default is not dataclasses.MISSING:
        return f.default
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else "required"


def text(p: dict) -> str:
    lines = [f"{p['name']}  ({p['category']}, {p['contract']})", f"  {p['place']}"]
    if p["source"]:
        lines.append(f"  from {p['source']}")
    lines += ["", *(f"  {line.strip()}" for line in p["doc"].splitlines())]
    if p["options"]:
        lines += ["", "options:", *(f"  {name}={o['default']}  ({o['type']})" for name, o in p["options"].items())]
    for name, r in p["searchable"].items():
        end = "" if r["strongest"] is None else f" to {r['strongest']:g}"
        lines += ["", f"searchable within a budget: {name}=?, from {r['gentlest']:g}{end}"]
    if p["rules"]:
        lines += ["", "rules:", *(f"  {r['name']}: {r['doc']}" for r in p["rules"])]
    return "\n".join(lines)
