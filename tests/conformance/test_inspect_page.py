"""The page of `effcc inspect --html` in headless Chromium: it draws, folds, searches and sorts, and loads nothing.

A script at the end of a copy of the page uses it as a person would and writes what it saw into the document.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import effcc
from effcc.inspect import page
from effcc.report import facts

ROOT = Path(__file__).parents[2]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=8000 --window-size=1400,900 "
    "--enable-logging=stderr"
).split()
VISIT = """
<script>
const seen = { errors: [], requests: performance.getEntriesByType("resource").length };
const texts = selector => [...document.querySelectorAll(selector)].map(e => e.textContent);
const drawn_nodes = () => document.querySelectorAll("#drawing .node").length;
const find = words => { const box = document.getElementById("search"); box.value = words; box.oninput(); };
try {
  seen.title = document.title;
  seen.tiles = texts(".tile b");
  seen.unfolded = (document.getElementById("unfold").click(), drawn_nodes());
  seen.edges = document.querySelectorAll("#drawing .edge").length;
  seen.folded = (document.getElementById("fold").click(), drawn_nodes());
  find("nothing of the kind"); seen.nothing = document.getElementById("found").textContent;
  find("conv"); seen.hits = document.querySelectorAll("#drawing .node.hit").length;
  document.querySelector("#drawing .node.hit").onclick();
  seen.details = document.getElementById("details").textContent;
  find("");
  const graphs = document.getElementById("which");
  graphs.value = "imported"; graphs.onchange(); document.getElementById("unfold").click();
  seen.imported = drawn_nodes();
  const launches = document.querySelectorAll("#kernels table")[1];
  const column = k => [...launches.querySelectorAll("tbody tr")].map(r => r.children[k].textContent);
  const head = [...launches.querySelectorAll("th")], work = head.findIndex(h => h.textContent === "work");
  head[work].click(); seen.most_work = column(0).map(Number);
  head[work].click(); seen.least_work = column(0).map(Number);
  const filter = document.querySelectorAll("#kernels input")[1];
  filter.value = "softmax"; filter.oninput(); seen.filtered = column(0).length;
  seen.buffers = document.querySelectorAll("#arena rect").length;
  seen.shown = texts("section.on").length;
  seen.narrow = document.documentElement.scrollWidth <= window.innerWidth;
} catch (error) { seen.errors.push(String(error.stack)); }
document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
</script>
"""


def visit(path: Path, profile: Path) -> tuple[dict, str]:
    """What the script saw, and the browser's log."""
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the page did not load: {done.stderr[-2000:]}"
    return json.loads(html.unescape(found[1])), done.stderr


@pytest.fixture(scope="module")
def program():
    return effcc.compile(str(ROOT / "examples" / "digits" / "digits_vit.onnx"))


@pytest.mark.skipif(BROWSER is None, reason="no chromium on the path: apt-get install chromium")
def test_the_page_in_a_browser(program, tmp_path):
    found = facts(program)
    path = tmp_path / "page.html"
    path.write_text(page(program, found).replace("</body>", f"{VISIT}</body>"), encoding="utf-8")
    seen, log = visit(path, tmp_path / "profile")
    assert seen["errors"] == [] and "Uncaught" not in log, (seen["errors"], log)
    assert seen["requests"] == 0 and found["name"] in seen["title"]
    assert seen["tiles"][0] == f"{found['ops']['before']} \u2192 {found['ops']['after']}"
    ends = len(found["inputs"]) + len(found["outputs"])
    assert seen["unfolded"] == found["ops"]["after"] + ends and seen["imported"] == found["ops"]["before"] + ends
    assert 1 <= seen["folded"] < seen["unfolded"] and seen["edges"] >= seen["unfolded"] - ends
    assert seen["nothing"] == "0 found" and seen["hits"] >= 1 and "conv" in seen["details"]
    by_work = sorted(range(len(found["kernels"])), key=lambda k: -found["kernels"][k]["flops"])
    most = [found["kernels"][k - 1]["flops"] for k in seen["most_work"]]
    assert most == [found["kernels"][k]["flops"] for k in by_work] and len(seen["most_work"]) == len(found["kernels"])
    assert [found["kernels"][k - 1]["flops"] for k in seen["least_work"]] == most[::-1]
    assert 0 < seen["filtered"] < len(found["kernels"]) and seen["buffers"] == len(found["memory"]["buffers"])
    assert seen["shown"] == 1 and seen["narrow"]


def test_the_script_looks_at_what_the_page_has():
    """The names that the visit uses are the page's: it cannot pass by finding nothing."""
    text = (ROOT / "effcc" / "inspect" / "page.html").read_text()
    for name in ("drawing", "unfold", "fold", "search", "found", "details", "which", "kernels", "arena"):
        assert f'id="{name}"' in text or f'id: "{name}"' in text
    assert os.path.getsize(ROOT / "effcc" / "inspect" / "page.html") < 60_000
