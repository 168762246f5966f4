"""Backends: a Graph becomes code for a target, one package a code generator, imported as `effcc.backends`.

`BACKENDS` maps what stands before the braces of a target ("cpu", "cpu{mcpu=...}") to a factory in a module that is imported
when the target is asked for. A backend offers what `effcc.driver.Backend` lists.
"""

BACKENDS = {"cpu": "effcc.backends.tvm.backend:CpuBackend"}
