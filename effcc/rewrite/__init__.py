"""Rewriting: rules with patterns, the greedy driver, and the workspace for passes that are no peepholes."""

from effcc.rewrite.driver import map_nested, rewrite
from effcc.rewrite.pattern import Pattern, PatternBuilder
from effcc.rewrite.rule import BOUNDED, EXACT, REFINES, Match, Rule
from effcc.rewrite.workspace import Item, ItemBuilder, RewriteError, Workspace

__all__ = ["BOUNDED", "EXACT", "REFINES", "Item", "ItemBuilder", "Match", "Pattern", "PatternBuilder", "RewriteError",
           "Rule", "Workspace", "map_nested", "rewrite"]
