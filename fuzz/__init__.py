"""The fuzzer: generators of graphs, laws that passes and backends must keep, imported as `effcc.fuzz`."""
