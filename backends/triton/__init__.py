"""Target cuda: Triton kernels, compiled ahead of time, launched through torch."""
