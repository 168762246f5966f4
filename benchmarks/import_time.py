"""Start-up: `import effcc` (asked: at most 0.2 s) and `effcc --help` (at most 0.5 s), each in a fresh process.

    python benchmarks/import_time.py

The bare interpreter's own start is measured in turn with them and shown beside.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

CASES = {
    "python": ["-c", "pass"],
    "import effcc": ["-c", "import effcc"],
    "effcc --version": ["-c", "import sys; sys.argv = ['effcc', '--version']; from effcc.cli import main; main()"],
    "effcc --help": ["-c", "import sys; sys.argv = ['effcc', '--help']; from effcc.cli import main; main()"],
}
LIMITS = {"import effcc": 0.2, "effcc --help": 0.5}


def seconds(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(11):
        for name, arguments in CASES.items():
            times[name].append(seconds(arguments))
    for name, taken in times.items():
        limit = f"  (asked: {LIMITS[name]} s)" if name in LIMITS else ""
        print(f"{name:16} {statistics.median(taken):6.3f} s{limit}")


if __name__ == "__main__":
    main()
