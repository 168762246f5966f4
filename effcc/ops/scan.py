"""Scans: folds along an axis that keep every prefix."""
