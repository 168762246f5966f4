"""Interpolation: torch's upsample ops as `resize`, grid sampling."""

from __future__ import annotations

from typing import Any

from effcc.frontends.torch.emitter import Emitter, lowers
from effcc.ir import Value
