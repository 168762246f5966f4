"""Weights in 4 bits, two a byte, arithmetic in float32."""

from __future__ import annotations

from typing import ClassVar

from effcc.passes.weight_quantization import WeightQuantization


class Int4Weights(WeightQuantization):
    """matmul(x, w) --> matmul(x, dequantize_linear(q, scale))     with q = round(w / scale) in i4

    One scale for each `group` neighbours along the summed axis, max |w| / 7 in float16 (`scales`); asymmetric: elements
    in u4 with zero points, scale = (max w - min w) / 15. search=mse takes a smaller range where that lessens the mean
    squared error. method=gptq rounds with calibration data
    (Frantar et al. 2022). gathers: tables of embeddings too, row by row. Matrices of fewer than `min_elements` stay.
    """

    name = "int4-weights"
    source = "Frantar et al. 2022 (groups); Dettmers & Zettlemoyer 2022, The case for 4-bit precision"
    bits: ClassVar[int] = 4
    group: int = 32
    scales: str = "f16"
