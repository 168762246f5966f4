"""Sequences and optionals of values."""
