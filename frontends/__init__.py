"""Frontends: a model becomes a Graph, one package a model format, imported as `effcc.frontends`."""
