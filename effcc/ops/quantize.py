"""Affine quantization: real numbers as scaled integers (or narrow floats) and back."""
