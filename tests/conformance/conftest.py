"""The suites here are scripts that import each other by name, as `python tests/conformance/opinfo.py` finds them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
