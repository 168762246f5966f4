"""Indexing: gathers, scatters, coordinates; which element is read or written depends on data or on positions."""
