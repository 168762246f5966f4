"""Passes: Graph -> Graph, one pass a file, imported as `effcc.passes`."""
