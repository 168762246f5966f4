"""Random numbers from a counter: the same seed and offset give the same numbers everywhere."""
