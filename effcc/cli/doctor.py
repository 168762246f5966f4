"""effcc doctor: what this machine and this installation offer."""

from __future__ import annotations

from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from effcc.cli.options import Json

PACKAGES = {
    "numpy": "",
    "apache-tvm-ffi": "",
    "apache-tvm-ffi-orcjit": "",
    "lark": "",
    "apache-tvm": "compile",
    "torch": "compile",
    "networkx": "compile",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "triton": "cuda",
    "openvino": "bench",
    "transformers": "bench",
}
"""What effcc uses, by the extra that installs it ('': needed always)."""


def doctor(as_json: Json = False) -> None:
    """Show what this machine offers, what is installed, and what is missing."""
    from effcc.cli.show import print_json

    found = examine()
    if as_json:
        print_json(found)
        return
    from effcc.report import size

    m, cache = found["machine"], found["cache"]
    print(f"effcc {found['effcc']}, Python {found['python']}, {found['system']}")
    cores = f"{m['cores']} cores for this process, vectors of {m['vector_bits']} bits"
    print(f"CPU     {m['architecture']}, {m['mcpu']}, {cores}")
    print(f"        L1 {size(m['l1'])}, L2 {size(m['l2'])} a core; L3 {size(m['l3'])}")
    print(f"        {' '.join(m['features'])}")
    writable = "" if cache["writable"] else ", NOT WRITABLE: nothing will be cached"
    held = f"{cache['entries']} kernels, {size(cache['bytes'])} of {size(cache['limit'])}"
    print(f"cache   {cache['folder']}: {held}{writable}")
    print(f"targets {', '.join(found['targets'])}")
    for target, line in found["offers"].items():
        print(f"        {target}: {line}")
    for name, version in found["packages"].items():
        extra = PACKAGES[name]
        missing = f"missing: pip install 'effcc[{extra}]'" if extra else "missing: reinstall effcc"
        print(f"{name:22} {version or missing}")
    for problem in found["problems"]:
        print(f"problem: {problem}")


def examine() -> dict[str, Any]:
    """All that doctor shows, as JSON."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from effcc import __version__
    from effcc.cli.cache import object_cache
    from effcc.machine import host

    machine, state = host(), object_cache().state()
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    folder = state.folder
    while not folder.exists():
        folder = folder.parent
    problems = [f"{name} is not installed" for name, found in packages.items() if found is None and not PACKAGES[name]]
    if os.name != "posix" or platform.system() != "Linux":
        problems.append(f"{platform.system()} is not supported; Linux is")
    facts = ("architecture", "mcpu", "cores", "vector_bits", "vector_registers", "l1", "l2", "l3")
    return {
        "effcc": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": {**{name: getattr(machine, name) for name in facts}, "features": sorted(machine.features)},
        "cache": {
            "folder": str(state.folder),
            "entries": state.entries,
            "bytes": state.bytes,
            "limit": state.limit,
            "writable": os.access(folder, os.W_OK),
        },
        "targets": list(import_module("effcc.backends").BACKENDS),
        "offers": {target: resolve_name(name)() for target, name in import_module("effcc.backends").OFFERS.items()},
        "packages": packages,
        "problems": problems,
    }
