"""Kernel templates: one file for each way to spread an iteration space over a GPU."""
