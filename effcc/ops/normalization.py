"""Softmax and normalizations: composites of reductions and elementwise ops."""
