"""Weights in 8 bits, arithmetic in float32: constants shrink to a quarter, and so do the bytes that a product reads."""

from __future__ import annotations

from typing import ClassVar

from effcc.passes.weight_quantization import WeightQuantization


class Int8Weights(WeightQuantization):
    """matmul(x, w) --> matmul(x, dequantize_linear(q, scale))     with q = round(w / scale) in i8

    One scale for each output channel, max |w| / 127, or with `group` for each so many neighbours along the summed axis;
    asymmetric: with zero points, scale = (max w - min w) / 255. search=mse takes a smaller range where that lessens the
    mean squared error. method=gptq rounds with calibration data
    (Frantar et al. 2022). gathers: tables of embeddings too, row by row. Matrices of fewer than `min_elements` stay.
    """

    name = "int8-weights"
    source = "Jacob et al. 2018, section 2.1; Dettmers et al. 2022 (per-channel weights)"
    bits: ClassVar[int] = 8
    group: int = 0
