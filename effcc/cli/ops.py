"""effcc ops: the registry of ops."""

from __future__ import annotations

from typing import Annotated

import typer

from effcc.cli.options import Json


def ops(
    name: Annotated[str | None, typer.Argument(help="One op, in full.", show_default=False)] = None,
    family: Annotated[str | None, typer.Option(help="Only the ops of one family.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the ops of the IR, with signature and meaning."""
    from effcc.cli.show import print_json, print_table
    from effcc.errors import UnsupportedError
    from effcc.ir.op import load_ops, op_class

    registry = load_ops()
    found = [describe(op_class(name))] if name else [describe(registry[n]) for n in sorted(registry)]
    families = sorted({o["family"] for o in found})
    if family is not None:
        found = [o for o in found if o["family"] == family]
        if not found:
            raise UnsupportedError(f"there is no family {family!r}", hint=f"families: {', '.join(families)}")
    if as_json:
        print_json(found)
    elif name:
        one = found[0]
        print(f"{one['signature']}  ({one['family']}, {one['place']})\n\n{one['doc']}")
        if one["undefined"]:
            print(f"\nundefined: {one['undefined']}")
    else:
        found.sort(key=lambda o: (o["family"], o["name"]))
        rows = [(o["family"], o["signature"], o["doc"].split("\n\n")[0].replace("\n", " ")) for o in found]
        print_table(f"{len(rows)} ops", ("family", "op", "meaning"), rows)


def describe(cls: type) -> dict[str, str]:
    """What an op class says about itself."""
    import dataclasses
    import inspect

    attributes = [
        f.name if f.default is dataclasses.MISSING else f"{f.name}={_plain(f.default)}" for f in cls.attributes()
    ]
    shown = f" {{{', '.join(attributes)}}}" if attributes else ""
    return {
        "name": cls.name,
        "family": cls.family,
        "signature": f"{cls.name}({', '.join(cls.operands)}){shown}",
        "doc": inspect.cleandoc(cls.__doc__ or ""),
        "undefined": cls.undefined,
        "place": f"{cls.__module__}:{cls.__qualname__}",
    }


def _plain(value: object) -> str:
    return (
        f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool | None) else str(value)
    )
