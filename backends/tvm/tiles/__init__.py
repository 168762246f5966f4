"""Schedules without barriers: a program as a graph of tiles, each of which runs as soon as what it reads is there.

In: a lowered plan (kernels with their tile spaces, launches over buffers).  Out: a `TileGraph`, a memory plan that its
order allows, and the program that runtime/tiles.ll schedules.

    space.py      which part of its results each tile writes: told by the templates
    regions.py    which part of its operands a part of the results needs: interval arithmetic over access maps
    overlap.py    the same memory seen through two places
    graph.py      launches -> tasks, dependencies, joins
    order.py      which tasks precede which; arenas whose reuse that order allows
    verify.py     each element written once, each read after its writes, no cycle; checked element by element
    text.py       a tile graph as text
    reference.py  runs the tasks one at a time, in random legal orders

After ASPEN (Park et al., NeurIPS 2023), with the events of MPK's task graphs.
"""
