"""What several passes ask of a graph: its cost, when values live, how nodes depend, how exact results are."""
