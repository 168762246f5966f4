"""Interpolation: torch's upsample ops as `resize`, grid sampling."""

from __future__ import annotations
