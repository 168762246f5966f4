"""Backends: a Graph becomes code for a target, one package a code generator, imported as `effcc.backends`.

`BACKENDS` maps what stands before the braces of a target ("cpu", "cpu{mcpu=...}") to a factory in a module that is
imported
when the target is asked for. A backend offers what `effcc.driver.Backend` lists.
"""

BACKENDS = {
    "cpu": "effcc.backends.tvm.backend:CpuBackend",
    "cuda": "effcc.backends.triton.backend:CudaBackend",
    "onnx": "effcc.backends.onnx.backend:OnnxBackend",
}

SUFFIXES = {"onnx": ".onnx"}
"""How the names of a target's files end, where not in .effcc."""

LOADERS = {"cpu": "effcc.backends.tvm.saved:load", "cuda": "effcc.backends.triton.saved:load"}
"""Artifact's backend -> the function from an Artifact (and a number of threads) to callable code."""

OFFERS = {"cuda": "effcc.backends.triton.target:offered"}
"""Targets that need more than this package -> a function that tells in a line what there is of it here."""

PEAKS = {"cpu": "effcc.backends.tvm.peaks:measure"}
"""Target -> a function from a number of threads to what this machine can do at best: its `flops` and `bandwidth`."""

CACHE = "effcc.backends.tvm.cache"
"""The module of the cache of compiled kernels: `default_cache()` and `parse_size(text)`."""
