"""Calls of torch functions: OpInfo's samples and error inputs, and samples with something changed.

The original is eager torch on the CPU. We trace the call with fake tensors, as AOTAutograd does, and import the graph:
what torch's own tracing refuses is refused, what it cannot trace is no opinion.
"""

from __future__ import annotations

import copy
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from effcc.errors import UnsupportedError
from effcc.fuzz.outside import Call, Types, Verdict, judged

DTYPES = (torch.float32, torch.float64, torch.float16, torch.int32, torch.int64, torch.bool)
SIZES = (0, 1, 2, 3, 5, 7)
SAMPLES = 4
"""Of each op and dtype, how many are looked at before another is drawn."""
COMPLEX = {"torch.float16": "torch.complex32", "torch.float32": "torch.complex64", "torch.float64": "torch.complex128"}


@cache
def operators() -> list[Any]:
    """The entries of OpInfo's database for which a call is a function of its arguments."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_methods_invocations as invocations

    invocations.wrapper_set_seed = lambda op, *args, **kwargs: op(*args, **kwargs)  # type: ignore[attr-defined]
    return [op for op in invocations.op_db if "jiterator" not in op.name and not op.name.startswith("sparse.")]


# -- changes ---------------------------------------------------------------------------------------
def changed(args: Any, chance: random.Random) -> tuple[Any, str]:
    """The arguments with one tensor or number changed, and which."""
    leaves, structure = tree_flatten(args)
    places = [k for k, x in enumerate(leaves) if isinstance(x, (torch.Tensor, int, float))]
    if not places:
        return args, "nothing"
    k = chance.choice(places)
    x = leaves[k]
    if isinstance(x, torch.Tensor):
        leaves[k], what = _tensor(x, chance)
    elif isinstance(x, bool):
        leaves[k] = not x
        what = str(leaves[k])
    else:
        leaves[k] = chance.choice((-1, 0, 1, 2, x + 1, -x))
        what = str(leaves[k])
    return tree_unflatten(leaves, structure), f"argument {k} is {what}"


def _tensor(x: torch.Tensor, chance: random.Random) -> tuple[torch.Tensor, str]:
    x = x.detach()
    way = chance.choice(("size", "size", "rank", "dtype"))
    if way == "dtype":
        x = x.to(chance.choice(DTYPES))
    elif way == "rank" or not x.dim():
        fewer = x.dim() and x.numel() and chance.random() < 0.5
        x = x.select(chance.randrange(x.dim()), 0) if fewer else x.unsqueeze(chance.randint(0, x.dim()))
    else:
        axis = chance.randrange(x.dim())
        size = chance.choice((*SIZES, x.shape[axis] + 1))
        at = torch.arange(size) % max(x.shape[axis], 1)
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        x = x.index_select(axis, at) if x.shape[axis] else x.new_zeros(shape)
    return x.clone(), f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"


# -- judges ----------------------------------------------------------------------------------------
def theirs(function: Callable[..., Any], args: Any) -> Verdict:
    try:
        results = function(*copy.deepcopy(args[0]), **copy.deepcopy(args[1]))
    except Exception as error:
        silent = isinstance(error, NotImplementedError) or any(word in str(error) for word in SILENT)
        return Verdict(None if silent else False, reason=" ".join(str(error).split())[:200])
    return Verdict(True, types_of(results))


SILENT = ("not implemented for", "out of bounds", "Class values", "max index", "single memory location",
          "Expected out tensor", "out of range: ")  # fmt: skip
"""What eager torch says where it lacks a kernel, or objects to data or to memory rather than to types."""


def types_of(results: Any) -> Types:
    return tuple((str(t.dtype), tuple(t.shape)) for t in tree_leaves(results) if isinstance(t, torch.Tensor))


def ours(function: Callable[..., Any], args: Any) -> Verdict:
    return judged(lambda: _imported(function, args))


def _imported(function: Callable[..., Any], args: Any) -> Types:
    """Trace with fake tensors, import, and read off the result types; sizes of data-dependent results are unknown."""
    from torch._functorch.aot_autograd import aot_export_module

    from effcc.errors import InputError
    from effcc.frontends.torch.decompositions import decompositions
    from effcc.frontends.torch.fx import import_fx
    from effcc.frontends.torch.signature import ArgumentOutput, TensorOutput

    leaves, structure = tree_flatten(copy.deepcopy(args))
    at = [k for k, x in enumerate(leaves) if isinstance(x, torch.Tensor)]

    class Module(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> Any:
            mine = list(leaves)
            for k, t in zip(at, tensors, strict=True):
                mine[k] = t
            positional, named = tree_unflatten(mine, structure)
            results = tree_leaves(function(*positional, **named))
            return tuple(r for r in results if isinstance(r, torch.Tensor))

    try:
        graph, facts = aot_export_module(Module(), [leaves[k] for k in at], trace_joint=False,
                                         decompositions=decompositions())  # fmt: skip
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if any(word in text for word in UNTRACEABLE):
            raise UnsupportedError(text[:200]) from None
        raise InputError(text[:200]) from None
    imported = import_fx(graph)  # type: ignore[arg-type]
    out: list[tuple[str, tuple[int | None, ...] | None]] = []
    mutated = len(facts.buffers_to_mutate) + len(facts.user_inputs_to_mutate)
    for output in imported.signature.outputs[mutated:]:
        match output:
            case TensorOutput(result, order, parts):
                type_ = imported.graph.results[result].tensor
                shape = list(type_.shape)
                if order is not None:
                    shape = [shape[order.index(k)] for k in range(len(order))]
                dtype = str(type_.dtype.torch)
                if parts:
                    shape, dtype = shape[:-1], COMPLEX[dtype]
                out.append((dtype, tuple(d if isinstance(d, int) else None for d in shape)))
            case ArgumentOutput(argument):
                t = leaves[at[argument]]
                out.append((str(t.dtype), tuple(t.shape)))
    return tuple(out)


UNTRACEABLE = ("DataDependent", "data-dependent", "DynamicOutputShape", "UnsupportedOperator", "GuardOnDataDependent",
               "UnsupportedFakeTensor", "PendingUnbacked", "not been traced", "must only be called", "aot_export",
               "mutated in the graph",
               "NotImplementedError", "cannot mutate")  # fmt: skip


# -- calls -----------------------------------------------------------------------------------------
def calls(chance: random.Random) -> Iterator[Call]:
    """Without end: for an op and dtype drawn at random its error inputs, some samples, and these changed."""
    while True:
        op = chance.choice(operators())
        dtype = chance.choice([d for d in DTYPES if d in op.supported_dtypes("cpu")] or [None])
        if dtype is None:
            continue
        torch.manual_seed(chance.getrandbits(32))
        name = f"{op.name}/{str(dtype).removeprefix('torch.')}"
        for what, function, args in itertools.islice(_invalid(op), SAMPLES):
            yield _call(name, what, function, args)
        drawn = op.sample_inputs("cpu", dtype, requires_grad=False)
        for s in itertools.islice(drawn, chance.randint(1, SAMPLES)):
            args = ((s.input, *s.args), dict(s.kwargs))
            if any(isinstance(x, torch.Tensor) and x.layout != torch.strided for x in tree_leaves(args)):
                continue
            yield _call(name, "as it is", op.op, args)
            for _ in range(3):
                other, what = changed(args, chance)
                yield _call(name, what, op.op, other)


def _invalid(op: Any) -> Iterator[tuple[str, Callable[..., Any], Any]]:
    if op.error_inputs_func is None:
        return
    try:
        for e in op.error_inputs("cpu"):
            s = e.sample_input
            if all(x.layout == torch.strided for x in tree_leaves((s.input, s.args)) if isinstance(x, torch.Tensor)):
                yield "an error input", op.op, ((s.input, *s.args), dict(s.kwargs))
    except Exception:  # some need a GPU
        return


def _call(name: str, what: str, function: Callable[..., Any], args: Any) -> Call:
    return Call(name, what, lambda: theirs(function, args), lambda: ours(function, args))
