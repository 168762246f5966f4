"""Ordering and selection: algorithms with routines of their own in the backends."""
