"""What a program consists of and how it came about: as facts (JSON) for tools, as text for people.

    print(effcc.compile("model.onnx").report())

Facts that depend on sizes hold for one binding of the program's size symbols, by default the smallest of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from effcc.errors import InputError

if TYPE_CHECKING:
    from effcc.ir.dims import Dim
    from effcc.ir.graph import Graph
    from effcc.program import Program

MOST_RULES = 6
"""How many rules of a pass the text names."""


def facts(program: Program, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """All that is known of a program, as JSON; `sizes` are values of size symbols by name."""
    if program.saved_facts is not None:
        if sizes and any(program.saved_facts["sizes"].get(name) != value for name, value in sizes.items()):
            raise InputError("an artifact knows its figures for one size only", hint="give the model instead")
        return program.saved_facts
    bound = {**smallest(program.graph), **(sizes or {})}
    kernels = program.code.kernels(bound)
    by_template: dict[str, dict[str, int]] = {}
    for kernel in kernels:
        entry = by_template.setdefault(kernel["template"], {"launches": 0, "kernels": 0, "flops": 0, "bytes": 0})
        entry["launches"] += 1
        entry["flops"] += kernel["flops"]
        entry["bytes"] += kernel["bytes"]
    for template, entry in by_template.items():
        entry["kernels"] = len({k["symbol"] for k in kernels if k["template"] == template})
    return {
        "name": program.source.name,
        "target": program.target,
        "sizes": bound,
        "fixed": {name: value.tolist() for name, value in program.fixed.items()},
        "inputs": [signature(v, name) for v, name in zip(program.source.inputs, program.input_names)],
        "outputs": [signature(v, name) for v, name in zip(program.source.results, program.output_names)],
        "ops": {"before": ops(program.source), "after": ops(program.graph)},
        "passes": passes(program),
        "log": [{"number": r.number, "pass": r.pass_name, "rule": r.rule, "at": str(r.loc)} for r in log(program)],
        "refusals": [
            {"pass": r.pass_name, "rule": r.rule, "at": str(r.loc), "reason": r.reason} for r in refusals(program)
        ],
        "notes": note_facts(program.context.notes if program.context is not None else []),
        "seconds": program.seconds,
        "templates": by_template,
        "kernels": kernels,
        "flops": sum(k["flops"] for k in kernels),
        "bytes": sum(k["bytes"] for k in kernels),
        "memory": program.code.memory(bound),
        "schedule": getattr(program.code, "schedule", None),
        "search": None if program.search is None else program.search.as_json(),
    }


def smallest(graph: Graph) -> dict[str, int]:
    """The least value of each size symbol, but at least 1."""
    return {s.name: max(s.lo, 1) for s in graph.symbols}


def at(dim: Dim, sizes: Mapping[str, int]) -> int:
    """The value of a dimension; symbols that `sizes` lacks (found at run time) count with their upper bound, or 1."""
    from effcc.ir.dims import evaluate, symbols

    values = {s: sizes.get(s.name, s.hi if s.hi is not None else max(s.lo, 1)) for s in symbols(dim)}
    return evaluate(dim, values)


def ops(graph: Graph) -> int:
    """The ops of a graph but for its constants."""
    return sum(node.op.name != "const" for node in graph.nodes)


def signature(value: Any, name: str) -> dict[str, str]:
    return {"name": name, "type": str(value.type)}


def log(program: Program) -> list[Any]:
    return program.context.log if program.context is not None else []


def refusals(program: Program) -> list[Any]:
    return list(program.context.refusals) if program.context is not None else []


def note_facts(notes: Iterable[Any]) -> list[dict[str, Any]]:
    """The figures that passes noted, each with its pass and place."""
    return [{"pass": n.pass_name, "at": str(n.loc), **n.figures} for n in notes]


def passes(program: Program) -> list[dict[str, Any]]:
    """For each pass, in order: its text, seconds, ops before and after, and how often each rule fired."""
    out, done = [], 0
    for entry in program.times.entries if program.times is not None else []:
        fired = Counter(r.rule for r in log(program)[done : entry.rewrites])
        done = entry.rewrites
        out.append(
            {
                "pass": entry.text,
                "seconds": entry.seconds,
                "before": entry.ops_before,
                "after": entry.ops_after,
                "rules": dict(fired.most_common()),
            }
        )
    return out


def text(program: Program) -> str:
    """What the passes did and what the program consists of."""
    return render(facts(program))


def render(found: Mapping[str, Any]) -> str:
    """The text of facts."""
    imported, compiled = found["ops"]["before"], found["ops"]["after"]
    lines = [f"@{found['name']} for {found['target']}: {imported} ops imported, {compiled} compiled"]
    lines += [f"  in   {x['name']}: {x['type']}" for x in found["inputs"]]
    lines += [f"  for  {name} = {value}" for name, value in found["fixed"].items()]
    lines += [f"  out  {x['name']}: {x['type']}" for x in found["outputs"]]
    if found["passes"]:
        width = max(len(p["pass"]) for p in found["passes"])
        lines.append(f"passes ({found['seconds'].get('passes', 0):.2f} s)")
        for p in found["passes"]:
            shown = ", ".join(f"{count} {rule}" for rule, count in list(p["rules"].items())[:MOST_RULES])
            more = len(p["rules"]) - MOST_RULES
            lines.append(
                f"  {p['pass']:{width}}  {p['before']:5} -> {p['after']:<5} {1e3 * p['seconds']:7.1f} ms  "
                f"{shown}{f', {more} more rules' if more > 0 else ''}".rstrip()
            )
    lines += note_lines(found.get("notes", []))
    launches = len(found["kernels"])
    symbols = len({k["symbol"] for k in found["kernels"]})
    lines.append(f"kernels: {launches} launches of {symbols} kernels ({found['seconds'].get('code', 0):.2f} s)")
    for template, t in sorted(found["templates"].items(), key=lambda item: -item[1]["flops"]):
        work = f"{count(t['flops']):>8}flop {size(t['bytes']):>10}"
        lines.append(f"  {template:12} {t['launches']:4} launches {t['kernels']:4} kernels {work}")
    lines += resources(found["kernels"])
    sizes = ", ".join(f"{name}={value}" for name, value in found["sizes"].items())
    lines.append(
        f"work{f' at {sizes}' if sizes else ''}: {count(found['flops'])}flop, {size(found['bytes'])} read and written"
    )
    m = found["memory"]
    lines.append(
        f"memory: {size(m['peak'])} of temporaries at the peak (lower bound {size(m['lower_bound'])}, "
        f"unshared {size(m['unshared'])}), {size(m['constants'])} of constants"
    )
    if found.get("schedule") is not None:
        lines.append(f"schedule: {schedule_line(found['schedule'])}")
    if found.get("search") is not None:
        from effcc.search.budget import text as search_lines

        lines += search_lines(found["search"])
    return "\n".join(lines)


def schedule_line(s: Mapping[str, Any]) -> str:
    """A schedule, why it was chosen, and what is known of tiles beside barriers."""
    line = f"{s['used']} ({s['reason']})"
    if s["tasks"]:
        line += f"; tiles: {s['tasks']} tasks, {s['joins']} joins, {s['edges']} edges, "
        line += f"{size(s['arena'])} of temporaries (barriers: {size(s['arena_under_barriers'])})"
    if s["milliseconds"] is not None:
        line += ", " + ", ".join(f"{name} {ms:.2f} ms" for name, ms in s["milliseconds"].items())
    return line


def note_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """The notes of each pass as a table: a column for each figure, a row for each place."""
    lines: list[str] = []
    for name in dict.fromkeys(n["pass"] for n in found):
        rows = [n for n in found if n["pass"] == name]
        columns = [c for c in dict.fromkeys(c for n in rows for c in n) if c != "pass"]
        table = [columns, *([_cell(n.get(c, "")) for c in columns] for n in rows)]
        widths = [max(len(row[k]) for row in table) for k in range(len(columns))]
        lines.append(f"notes of {name}")
        lines += ["  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in table]
    return lines


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def resources(kernels: list[Mapping[str, Any]]) -> list[str]:
    """A line for each architecture of a GPU that kernels were compiled for: what the hungriest takes."""
    distinct = {k["symbol"]: k["on"] for k in kernels if k.get("on")}
    lines = []
    for name in dict.fromkeys(a for on in distinct.values() for a in on):
        figures = [on[name] for on in distinct.values()]
        most = {key: max(f[key] for f in figures) for key in ("registers", "stack", "shared")}
        spilling, cores = (sum(bool(f[key]) for f in figures) for key in ("spills", "tensor_core"))
        lines.append(
            f"  {name:12} up to {most['registers']} registers, {most['stack']} bytes of local memory a thread, "
            f"{size(most['shared'])} of shared memory; {spilling} kernels spill, {cores} use tensor cores"
        )
    return lines


def size(n: int) -> str:
    """Bytes for people.

    >>> size(1536), size(3)
    ('1.5 KB', '3 B')
    """
    for unit, scale in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if n >= scale:
            return f"{n / scale:.1f} {unit}"
    return f"{n} B"


def count(n: float) -> str:
    """A large number with a decimal prefix, for a unit to follow.

    >>> count(4.1e9) + "flop", count(12) + "flop"
    ('4.1 Gflop', '12 flop')
    """
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            return f"{n / scale:.1f} {prefix}"
    return f"{n:.0f} "
