"""Signal processing in real arithmetic: complex numbers are a last axis of size 2."""

from __future__ import annotations

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.frontends.onnx.ops_elementwise import cast
from effcc.frontends.onnx.ops_shape import piece
from effcc.ir.dims import product
from effcc.ir.graph import Value
from effcc.ir.types import f32

LARGEST = 4096
"""The longest transform: it is one product with a matrix of that many rows."""


def transform(
    n: OnnxNode, x: Value, length: int, inverse: bool, onesided: bool, window: np.ndarray | None = None
) -> Value:
    """The DFT of [..., n, 1 or 2] over the axis before the last, as a product with a constant matrix.

    Forward X_k = Σ x_j e^(-2πi jk/N), inverse with e^(+2πi jk/N) / N. `onesided` forward: the first ⌊N/2⌋ + 1 bins;
    `onesided` inverse: those bins in, real numbers out.
    """
    size, parts = x.shape[-2:]
    n.plain([size], "the number of samples")
    if length > LARGEST:
        n.refuse(f"a transform of length {length}", f"up to {LARGEST}")
    if onesided and inverse:
        size = min(size, length // 2 + 1)
    else:
        size = min(size, length)
    bins = length // 2 + 1 if onesided and not inverse else length
    angle = (2 * np.pi / length) * (np.outer(np.arange(size), np.arange(bins)) % length)
    cos, sin = np.cos(angle), np.sin(angle) * (1 if inverse else -1)
    outputs = 1 if onesided and inverse else 2
    matrix = np.zeros((size, parts, bins, outputs))
    matrix[:, 0, :, 0] = cos
    if outputs == 2:
        matrix[:, 0, :, 1] = sin
    if parts == 2:
        matrix[:, 1, :, 0] = -sin
        if outputs == 2:
            matrix[:, 1, :, 1] = cos
    if inverse:
        matrix /= length
    if onesided and inverse:  # the other bins are the conjugates of these
        twice = np.full(size, 2.0)
        twice[0] = 1.0
        if length % 2 == 0 and size == length // 2 + 1:
            twice[-1] = 1.0
        matrix *= twice[:, None, None, None]
    if window is not None:
        matrix *= window[:size, None, None, None]
    flat = n.b.reshape(piece(n, x, len(x.shape) - 2, 0, size), shape=(product(x.shape[:-2]), size * parts))
    weights = n.b.const(matrix.reshape(size * parts, bins * outputs).astype(x.dtype.numpy))
    return n.b.reshape(n.b.matmul(flat, weights), shape=(*x.shape[:-2], bins, outputs))


@onnx_op("DFT")
def dft(n: OnnxNode, x: Value, length: Value | None = None, axis: Value | None = None) -> Value:
    rank = len(x.shape)
    where = n.attr("axis", 1) if n.version < 20 else -2 if axis is None else n.integer(axis, "the axis")
    k = n.axis(where, rank)
    inverse, onesided = bool(n.attr("inverse", 0)), bool(n.attr("onesided", 0))
    n.plain([x.shape[k]], "the number of samples")
    default = 2 * (x.shape[k] - 1) if inverse and onesided else x.shape[k]
    count = default if length is None else n.integer(length, "the length")
    perm = [*(a for a in range(rank - 1) if a != k), k, rank - 1]
    y = transform(n, n.b.transpose(x, perm=tuple(perm)), count, inverse, onesided)
    back = [0] * rank
    for i, p in enumerate(perm):
        back[p] = i
    return n.b.transpose(y, perm=tuple(back))


@onnx_op("STFT", ranks=(2,))
def stft(n: OnnxNode, x: Value, step: Value, window: Value | None = None, length: Value | None = None) -> Value:
    """Frames [B, F, N, 1 or 2], times the window, transformed."""
    if len(x.shape) == 2:
        x = n.b.reshape(x, shape=(*x.shape, 1))
    hop = n.integer(step, "the step")
    if length is not None:
        size = n.integer(length, "the frame length")
    else:
        assert window is not None
        n.plain(window.shape, "the window's size")
        size = window.shape[0]
    samples = x.shape[1]
    n.plain([samples], "the number of samples")
    frames = (samples - size) // hop + 1
    at = n.b.const((np.arange(frames)[:, None] * hop + np.arange(size)).astype(np.int64))
    y = n.b.gather(x, at, axis=1)
    if window is not None:
        y = n.b.mul(y, n.b.reshape(window, shape=(size, 1)))
    return transform(n, y, size, False, bool(n.attr("onesided", 1)))


@onnx_op("MelWeightMatrix")
def mel_weight_matrix(
    n: OnnxNode, num_mel_bins: Value, dft_length: Value, sample_rate: Value, lower: Value, upper: Value
) -> Value:
    """Triangular filters, equally spaced on the mel scale 2595 log₁₀(1 + f/700); the scalars are known at import."""
    bins, length, rate = (n.integer(v, "the filter bank") for v in (num_mel_bins, dft_length, sample_rate))
    low, high = (float(n.array(v, "the filter bank").item()) for v in (lower, upper))
    mel = np.linspace(2595 * np.log10(1 + low / 700), 2595 * np.log10(1 + high / 700), bins + 2, endpoint=False)
    # the specification spaces the edges by (high - low) / (bins + 2)
    edges = ((length + 1) * (700 * (10 ** (mel / 2595) - 1)) // rate).astype(int)
    out = np.zeros((length // 2 + 1, bins))
    for k in range(bins):
        left, centre, right = edges[k], edges[k + 1], edges[k + 2]
        if centre == left:
            out[centre, k] = 1
        for j in range(left, centre + 1 if centre != left else left):
            out[j, k] = (j - left) / (centre - left)
        for j in range(centre, right):
            out[j, k] = (right - j) / (right - centre)
    dtype = n.dtype_attr("output_datatype", f32)
    assert dtype is not None
    return cast(n, n.b.const(out), dtype)
