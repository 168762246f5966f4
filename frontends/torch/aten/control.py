"""Control flow: torch.cond, while_loop, scan and wrapped subgraphs."""
