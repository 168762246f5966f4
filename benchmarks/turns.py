"""Measures in turns: see effcc/turns.py."""

from effcc.turns import Contestant, take_turns

__all__ = ["Contestant", "take_turns"]
