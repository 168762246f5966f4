"""Which branches of some modules run, told by probes that are compiled into them, which cost little (a tracer makes all
Python code slow while it is on).

    reached = probed("effcc.passes")    # a set, to be cleared and read
    ...
    reached                             # {"branch passes/fuse.py 85", "branch passes/fuse.py 91 not", ...}

A probe stands at the start of each function and of each block that may be passed over: it notes the block's first line,
or, where an `if` has no else and is not taken, its own line and "not".
"""

from __future__ import annotations

import ast
import gc
import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

NOTE = "__note_branch__"
"""What a probe calls: the name in its module's globals."""


@cache
def probed(name: str) -> set[str]:
    """Put probes into the functions of all modules of a package, once; the set that they add to."""
    package, reached = importlib.import_module(name), set[str]()
    names = [f"{package.__name__}.{info.name}" for info in pkgutil.walk_packages(package.__path__)]
    modules = [package, *map(importlib.import_module, names)]
    codes = {id(m.__dict__): probed_codes(m, package.__name__.rpartition(".")[2]) for m in modules if m.__file__}
    for module in modules:
        setattr(module, NOTE, reached.add)
    for f in gc.get_objects():
        if type(f) is FunctionType and (found := codes.get(id(f.__globals__), {}).get(key(f.__code__))) is not None:
            f.__code__ = found
    return reached


def probed_codes(module: ModuleType, room: str) -> dict[tuple[str, int], CodeType]:
    """The code of all functions of a module, with probes. room: what its file's name is to begin with."""
    assert module.__file__ is not None
    path = Path(module.__file__)
    tree = ast.parse(path.read_text())
    for node in list(ast.walk(tree)):
        put_probes(node, f"branch {room}/{path.name}")
    code = compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)
    return {key(c): c for c in nested(code)}


def put_probes(node: ast.AST, name: str) -> None:
    """Probes for the blocks of one statement."""
    match node:
        case ast.If(body=body, orelse=orelse):
            put_probe(body, name)
            if orelse:
                put_probe(orelse, name)
            else:
                orelse.append(ast.copy_location(probe(f"{name} {node.lineno} not"), node))
        case ast.For(body=body) | ast.While(body=body) | ast.ExceptHandler(body=body) | ast.match_case(body=body):
            put_probe(body, name)
        case ast.FunctionDef(body=body):
            put_probe(body, name)


def put_probe(block: list[ast.stmt], name: str) -> None:
    """At the start of a block, behind a docstring."""
    at = int(isinstance(block[0], ast.Expr) and isinstance(block[0].value, ast.Constant))
    block.insert(at, ast.copy_location(probe(f"{name} {block[0].lineno}"), block[0]))


def probe(what: str) -> ast.stmt:
    """The statement that notes a branch."""
    note = ast.Call(ast.Name(NOTE, ast.Load()), [ast.Constant(what)], [])
    return ast.Expr(note)


def key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and those of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)
