"""Control flow: graphs as attributes, every capture an explicit operand."""
