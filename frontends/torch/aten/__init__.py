"""Handlers of aten ops, by meaning; importing this package fills `HANDLERS`."""

from effcc.frontends.torch.aten import (
    attention,
    complex,
    contraction,
    control,
    convolution,
    creation,
    elementwise,
    index,
    normalization,
    pooling,
    random,
    reduction,
    resample,
    sort,
    view,
)

__all__ = [
    "attention",
    "complex",
    "contraction",
    "control",
    "convolution",
    "creation",
    "elementwise",
    "index",
    "normalization",
    "pooling",
    "random",
    "reduction",
    "resample",
    "sort",
    "view",
]
