"""Raising: primitive soup, as exporters emit it, becomes the ops that backends and other passes know whole."""

from __future__ import annotations

from effcc.passes.raise_activations import ACTIVATION_RULES
from effcc.passes.raise_attention import ATTENTION_RULES
from effcc.passes.raise_normalizations import NORMALIZATION_RULES
from effcc.passes.view_algebra import (
    ReshapeOfReshape,
    ReshapeOfSwap,
    SameShape,
    TransposeOfNothing,
    TransposeOfTranspose,
)
from effcc.pipeline import RulePass

CLEARING_RULES = (
    TransposeOfTranspose(), TransposeOfNothing(), ReshapeOfReshape(), ReshapeOfSwap(), SameShape("reshape"),
)
"""What brings a repeated key head and its attention next to each other."""


class Raise(RulePass):
    """Recognise activations, normalizations, attention and rotary embedding. Floats are reassociated; a row of
    attention that is masked all over becomes zeros instead of NaN."""

    name = "raise"
    contract = "refines"
    rules = (*NORMALIZATION_RULES, *ACTIVATION_RULES, *ATTENTION_RULES, *CLEARING_RULES)
