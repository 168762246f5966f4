"""Backends: Graph -> code, one package a target, imported as `effcc.backends`."""
