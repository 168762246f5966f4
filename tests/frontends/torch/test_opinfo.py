"""Every op of torch's own OpInfo database, on its sample inputs: our graph, interpreted, equals torch.

`UNSUPPORTED` names what we refuse, with the reason; an entry that starts to pass fails the test, so the list stays true.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

pytest.importorskip("expecttest", reason="torch's OpInfo database needs it")

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402
