"""Passes by name, pipelines as text, the context that passes run in, instruments and bisection."""

from effcc.pipeline.context import Context, Note, Refusal, Rewrite
from effcc.pipeline.manager import Culprit, Instrument, PassManager, PrintAfter, Time, Verify, bisect
from effcc.pipeline.passes import CATEGORIES, Pass, Range, RulePass, find_pass, pass_table, passes_of
from effcc.pipeline.text import parse_pass, parse_pipeline, print_pass, print_pipeline, with_options

__all__ = ["CATEGORIES", "Context", "Culprit", "Instrument", "Note", "Pass", "PassManager", "PrintAfter", "Range",
           "Refusal", "Rewrite", "RulePass", "Time", "Verify", "bisect", "find_pass", "parse_pass", "parse_pipeline",
           "pass_table", "passes_of", "print_pass", "print_pipeline", "with_options"]
