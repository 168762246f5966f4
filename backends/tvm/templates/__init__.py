"""Kernel templates: each emits the body of one serial tile function into the current IRBuilder scope.

In: plain integers, TIR expressions and flat buffers. Out: statements. Nothing here knows effcc's IR: lowering opens the
PrimFunc, declares the arguments, and hands over callbacks that read operands (prologues) and store results (epilogues).
To add one: a frozen dataclass that says what is computed, `tiles(...)` and `scratch_bytes(...)` beside `emit(...)`.
"""
