"""Opens the page of `effcc inspect --html` in headless Chromium, offline, and uses it as a reader would.

    python tests/conformance/inspect_page.py [--picture page.png]

A script is added to the page that searches, folds and unfolds the graph, sorts and filters a table, and opens each tab;
it writes what it saw into the page, which Chromium prints. `CHROMIUM` names another browser binary.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "examples" / "digits" / "digits_vit.onnx"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

ERRORS = """<script>
const problems = []; window.onerror = (text, _, line) => { problems.push(`${text} (line ${line})`); };
</script>"""
READER = """<script>
const seen = { ready: document.documentElement.dataset.ready, title: document.title, tabs: {} };
const at = id => document.getElementById(id);
const drawn_nodes = () => at("drawing").querySelectorAll("g.node").length;
try {
  seen.ops = view.nodes.length;
  at("unfold").click(); seen.unfolded = drawn_nodes();
  at("fold").click(); seen.folded = drawn_nodes();
  at("unfold").click();
  at("search").value = "contraction"; at("search").oninput(); seen.found = view.hits.length;
  at("search").value = "no such op anywhere"; at("search").oninput(); seen.not_found = view.hits.length;
  choose(view.nodes.length - 1); seen.details = at("details").textContent.length;
  for (const button of document.querySelectorAll(".bar button")) {
    button.click(); seen.tabs[button.dataset.tab] = at(button.dataset.tab).textContent.length;
  }
  const launches = [...at("kernels").querySelectorAll("table")].at(-1);
  const column = () => [...launches.querySelectorAll("tbody tr")].map(row => Number(row.cells[0].textContent));
  seen.rows = column();
  launches.querySelector("th").click(); seen.sorted_once = column();
  launches.querySelector("th").click(); seen.sorted_twice = column();
  const filter = [...at("kernels").querySelectorAll("input")].at(-1);
  filter.value = "no such kernel"; filter.oninput(); seen.filtered = column().length;
} catch (error) { problems.push(String(error)); }
seen.problems = problems;
const outcome = document.createElement("pre"); outcome.id = "outcome";
outcome.textContent = "BEGIN" + JSON.stringify(seen) + "END"; document.body.append(outcome);
</script>"""


def browser() -> str:
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit(f"no browser: install chromium, or set CHROMIUM (looked for {', '.join(BROWSERS)})")
    return found


def chromium(page: Path, *options: str) -> str:
    """Load a page with no network, and return the document as it is after its scripts ran."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", *options]
    with tempfile.TemporaryDirectory() as profile:
        command = [browser(), *flags, f"--user-data-dir={profile}", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def read(page: Path) -> dict[str, Any]:
    """What a reader sees who clicks through the page."""
    text = page.read_text()
    assert text.count("<head>") == 1 and text.count("</body>") == 1
    instrumented = page.with_name("instrumented.html")
    instrumented.write_text(text.replace("<head>", "<head>" + ERRORS).replace("</body>", READER + "</body>"))
    document = chromium(instrumented, "--dump-dom", "--virtual-time-budget=10000")
    outcomes = re.findall(r"BEGIN(\{.*?\})END</pre>", document, re.DOTALL)
    if not outcomes:
        raise SystemExit("the page's scripts did not reach their end")
    return json.loads(outcomes[-1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


def complaints(page: Path, seen: dict[str, Any]) -> list[str]:
    """Everything that is not as it should be."""
    elsewhere = r"""(?:src|href)\s*=\s*["'](?!#|data:)([^"']+)|@import|url\((?!["']?data:)"""
    checks = {
        "the page says that it is ready": seen["ready"] == "yes",
        "no script error": not seen["problems"],
        "nothing is loaded from elsewhere": not re.search(elsewhere, page.read_text()),
        "the graph has its ops": seen["ops"] > 50,
        "unfolded, all ops are drawn": seen["unfolded"] >= seen["ops"],
        "folding hides ops": seen["folded"] < seen["unfolded"],
        "search finds contractions": 0 < seen["found"] < seen["ops"],
        "search finds nothing where there is nothing": seen["not_found"] == 0,
        "an op has details": seen["details"] > 20,
        "every tab has content": all(seen["tabs"].values()) and len(seen["tabs"]) >= 5,
        "launches are listed in order": seen["rows"] == list(range(1, len(seen["rows"]) + 1)) != [],
        "a column sorts both ways": seen["sorted_once"] == seen["sorted_twice"][::-1] != seen["sorted_twice"],
        "a filter filters": seen["filtered"] == 0,
    }
    return [name for name, holds in checks.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="also write what a visitor sees first, as PNG")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        effcc = [sys.executable, "-c", "from effcc.cli import main; main()"]
        subprocess.run([*effcc, "inspect", MODEL, "--html", page], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        seen = read(page)
        wrong = complaints(page, seen)
        if options.picture is not None:
            chromium(page, f"--screenshot={options.picture.resolve()}", "--window-size=1600,1100")
    for problem in seen["problems"]:
        print(f"script error: {problem}")
    for name in wrong:
        print(f"not so: {name}")
    print(f"inspect page: {'failed' if wrong else 'ok'}; {seen['ops']} ops, {len(seen['rows'])} launches")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
