"""Resampling: values at fractional positions (resize, grid sampling, regions of interest)."""
