"""Features for classical models: n-gram counts, thresholds, selection, trees."""

from __future__ import annotations

import numpy as np

from effcc.frontends.onnx.node import OnnxNode, onnx_op
from effcc.ir.graph import Value
from effcc.ir.types import f32, i64

ML = "ai.onnx.ml"
LARGEST = 1 << 28
"""Elements of a row, and of the matrix that puts counts in their places."""


@onnx_op("TfIdfVectorizer", ranks=(1,))
def tf_idf_vectorizer(n: OnnxNode, x: Value) -> Value:
    """Counts of the pool's n-grams (over windows whose elements lie up to max_skip_count apart), weighted."""
    if "pool_strings" in n:
        n.refuse("strings", "do that part of the work outside of the model")
    pool, starts = n.attr("pool_int64s"), (*n.attr("ngram_counts"), len(n.attr("pool_int64s")))
    columns = np.array(n.attr("ngram_indexes"))
    low, high, skips = n.attr("min_gram_length"), n.attr("max_gram_length"), n.attr("max_skip_count")
    batch = x.shape[:-1]
    length = x.shape[-1]
    n.plain([length], "the number of elements")
    if length > LARGEST:
        n.refuse(f"rows of {length} elements")
    rows = x if batch else n.b.reshape(x, shape=(1, length))
    b = n.b
    first = 0
    counts = []
    for size in range(1, len(starts)):
        part = pool[starts[size - 1] : starts[size]]
        if len(part) % size:
            n.malformed(f"{len(part)} elements of the pool are no {size}-grams")
        grams = np.array(part, np.int64).reshape(-1, size)
        if not low <= size <= high:
            grams = grams[:0] if not len(grams) else grams
        total = b.broadcast_to(b.const(np.float32(0)), shape=(rows.shape[0], len(grams)))
        for skip in range(skips + 1 if size > 1 else 1):
            windows = length - (size - 1) * (skip + 1)
            if windows <= 0 or not low <= size <= high or not len(grams):
                continue
            at = np.arange(windows)[:, None] + np.arange(size) * (skip + 1)
            seen = b.gather(b.cast(rows, to=i64) if rows.dtype != i64 else rows, b.const(at.astype(np.int64)), axis=1)
            seen = b.reshape(seen, shape=(rows.shape[0], windows, 1, size))
            hit = b.all(b.eq(seen, b.const(grams)), axes=(3,), keepdims=False)
            total = b.add(total, b.sum(b.cast(hit, to=f32), axes=(1,), keepdims=False))
        counts.append(total)
        first += len(grams)
    whole = counts[0] if len(counts) == 1 else b.concat(*counts, axis=1)
    mode = n.attr("mode")
    weights = np.array(n.attr("weights", np.ones(first)), np.float32)
    if mode in ("IDF", "TFIDF"):
        whole = b.cast(b.gt(whole, b.const(np.float32(0))), to=f32) if mode == "IDF" else whole
        whole = b.mul(whole, b.const(weights))
    if len(columns) != first:
        n.malformed(f"{len(columns)} places in the result for {first} n-grams")
    if columns.min(initial=0) < 0 or first * (int(columns.max(initial=0)) + 1) > LARGEST:
        n.refuse(f"places of up to {columns.max()} in the result for {first} n-grams")
    placed = np.zeros((first, int(columns.max()) + 1), np.float32)
    placed[np.arange(first), columns] = 1
    out = b.matmul(whole, b.const(placed))
    return b.reshape(out, shape=(*batch, placed.shape[1]))


@onnx_op("Binarizer", domain=ML)
def binarizer(n: OnnxNode, x: Value) -> Value:
    return n.b.cast(n.b.gt(x, n.b.full_like(x, n.attr("threshold", 0.0))), to=x.dtype)


@onnx_op("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(n: OnnxNode, x: Value, index: Value) -> Value:
    picked = n.b.gather(x, n.b.reshape(index, shape=(index.tensor.size,)), axis=len(x.shape) - 1)
    return picked if len(x.shape) > 1 else n.b.reshape(picked, shape=(1, *picked.shape))


@onnx_op("Shrink")
def shrink(n: OnnxNode, x: Value) -> Value:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    lambd, bias = n.attr("lambd", 0.5), n.attr("bias", 0.0)
    wide = x if x.dtype.is_float else n.b.cast(x, to=f32)
    like = n.b.full_like
    y = n.b.where(
        n.b.lt(wide, like(wide, -lambd)),
        n.b.add(wide, like(wide, bias)),
        n.b.where(n.b.gt(wide, like(wide, lambd)), n.b.sub(wide, like(wide, bias)), like(wide, 0.0)),
    )
    return y if wide is x else n.b.cast(y, to=x.dtype)
