"""The base of all ops, and their registry. One op is one class in `effcc/ops/`; nobody keeps a second table.

An op is a frozen dataclass: its fields are its attributes, in Python, in text and in the fuzzer.

    class Transpose(View):
        \"\"\"Permute the axes: result[..., i_k, ...] = x[..., i_perm⁻¹(k), ...].\"\"\"
        name = "transpose"
        perm: tuple[int, ...]
        def infer(self, x): ...
        def reference(self, x): return x.permute(self.perm)
        def compute(self, x): ...
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

from effcc.errors import TypeRuleError, UnsupportedError
from effcc.ir.dims import Dim, Symbol
from effcc.ir.domain import Domain
from effcc.ir.scalar import Compute
from effcc.ir.types import Tensor, Type

if TYPE_CHECKING:
    from effcc.ir.graph import Graph

REGISTRY: dict[str, type[Op]] = {}
FAMILY_MODULES = (
    "constant",
    "elementwise",
    "contraction",
    "window",
    "reduction",
    "normalization",
    "view",
    "index",
    "resize",
    "resample",
    "sort",
    "scan",
    "control",
    "quantize",
    "encoding",
    "random",
    "attention",
    "sequence",
    "fused",
)


@dataclass_transform(frozen_default=True)
class Op:
    """One operation with its attributes; immutable, hashable, without operands."""

    name: ClassVar[str] = ""
    family: ClassVar[str] = ""
    operands: ClassVar[tuple[str, ...]] = ("x",)
    """Names in order; "name?" may be absent at the end, "*name" takes any number at the end."""
    num_results: ClassVar[int | None] = 1
    """None where it depends on the attributes: then `infer` tells."""
    kinds: ClassVar[str] = "fiub"
    """The kinds of dtype (float, signed, unsigned, bool) that an operand may have; `infer` says for which and when."""
    pure: ClassVar[bool] = True
    """Whether equal operands give equal results and nothing else happens: what CSE, DCE and folding may touch."""
    routine: ClassVar[bool] = False
    """Whether it is an algorithm (sorting, control flow), for which each backend has a routine of its own: no loop
    nest."""
    widens: ClassVar[bool] = True
    """Whether it means the same real function in any float dtype: not where it draws or looks at the bits of one, or
    takes no other. f64 then tells nothing of it, and the precision analysis leaves it as it is."""
    undefined: ClassVar[str] = ""
    """Operand values for which the result may be anything (never a crash); the fuzzer keeps away from them."""
    domains: ClassVar[Mapping[str, Domain]] = {}
    """The same of each operand alone, by name: which values it must have."""

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "name" in cls.__dict__:
            dataclasses.dataclass(frozen=True)(cls)
            if cls.name in REGISTRY and REGISTRY[cls.name].__qualname__ != cls.__qualname__:
                raise TypeError(f"two ops are called {cls.name}")
            REGISTRY[cls.name] = cls

    # -- what an op says about itself ----------------------------------------------------------------------------------
    # Overrides name their operands: `**_` tells type checkers that these signatures stand for any.
    def infer(self, *types: Any, **_: Any) -> tuple[Type, ...] | Type:
        """The type rule: result types for operand types; raises TypeRuleError. Shapes are outermost first."""
        raise NotImplementedError(f"{type(self).__name__}.infer")

    def reference(self, *tensors: Any, **_: Any) -> Any:
        """The meaning, on torch tensors: interpreter, oracle, and by autograd the gradient."""
        raise NotImplementedError(f"{type(self).__name__}.reference")

    def compute(self, *types: Any, **_: Any) -> Compute | None:
        """The loop nest, or None for composites (see `decompose`) and algorithms (sorting, control)."""
        return None

    def decompose(self, b: Any, *values: Any, **_: Any) -> Any:
        """The same in smaller ops (NotImplemented where it is one of the small ones)."""
        return NotImplemented

    def defines(self, *types: Any, **_: Any) -> Mapping[Symbol, Dim | None]:
        """The size symbols whose values the op tells at run time (nonzero, unique), each with an upper bound (None:
        unknown)."""
        return {}

    def leaves_open(self, *tensors: Any, **_: Any) -> bool:
        """Whether some results on these operands may be NaN or not, as it suits a backend (and torch)."""
        return False

    def flops(self, *types: Any, **_: Any) -> Dim:
        """Floating-point (or integer) operations for operands of these types."""
        nest = self.compute(*types)
        return 0 if nest is None else nest.flops

    # -- what follows from it ------------------------------------------------------------------------------------------
    @classmethod
    def attributes(cls) -> tuple[dataclasses.Field[Any], ...]:
        return attributes_of(cls)

    @classmethod
    def domain(cls, k: int) -> Domain | None:
        """Which values the operand at a position must have (None: any)."""
        return cls.domains.get(cls.operands[min(k, len(cls.operands) - 1)].strip("?*")) if cls.domains else None

    @property
    def attrs(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in self.attributes()}

    def graphs(self) -> dict[str, Graph]:
        """Nested graphs by attribute name."""
        return {k: getattr(self, k) for k in graph_attributes(type(self))}

    def replace(self, **changes: Any) -> Op:
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    @classmethod
    def arity(cls) -> tuple[int, int | None]:
        """The least and the greatest number of operands (None: any)."""
        return arity_of(cls)

    def result_types(self, types: tuple[Type, ...]) -> tuple[Type, ...]:
        """Check the arity, run the type rule, and name the op in what it refuses."""
        return _known_types(self, types) if self.is_small else self._result_types(types)

    @property
    def is_small(self) -> bool:
        """Whether it compares and hashes at once: it holds no data and no graph."""
        return self.family != "constant" and not graph_attributes(type(self))

    def _result_types(self, types: tuple[Type, ...]) -> tuple[Type, ...]:
        low, high = self.arity()
        if len(types) < low or (high is not None and len(types) > high):
            wanted = f"{low}" if low == high else f"{low} to {'any' if high is None else high}"
            raise TypeRuleError(f"{self.name} takes {wanted} operands ({', '.join(self.operands)}), got {len(types)}")
        try:
            out = self.infer(*types)
        except TypeRuleError as error:
            shown = ", ".join(map(str, types))
            raise TypeRuleError(f"{self.name}({shown}): {error.message}", hint=error.hint) from None
        out = out if isinstance(out, tuple) else (out,)
        for t in out:
            if isinstance(t, Tensor) and any(type(d) is int and d < 0 for d in t.shape):
                raise TypeRuleError(f"{self.name} gives {t}, with a size below 0")
        return out

    def run(self, *tensors: Any, results: tuple[Type, ...] = ()) -> tuple[Any, ...]:
        """Evaluate `reference` and normalise to a tuple."""
        out = self.reference(*tensors)
        return tuple(out) if isinstance(out, (tuple, list)) and self.num_results != 1 else (out,)


@lru_cache(maxsize=1 << 14)
def _known_types(op: Op, types: tuple[Type, ...]) -> tuple[Type, ...]:
    """Most nodes are typed many times: after each pass."""
    return op._result_types(types)


@cache
def attributes_of(cls: type[Op]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


@cache
def arity_of(cls: type[Op]) -> tuple[int, int | None]:
    required = sum(1 for o in cls.operands if not o.endswith("?") and not o.startswith("*"))
    return required, (None if any(o.startswith("*") for o in cls.operands) else len(cls.operands))


@cache
def size_attributes(cls: type[Op]) -> tuple[str, ...]:
    """The attributes that are declared to hold dimensions, types or graphs, in which there may be size symbols."""
    return tuple(f.name for f in attributes_of(cls) if re.search(r"\b(Dim|Symbol|Type|Graph)\b", str(f.type)))


@cache
def graph_attributes(cls: type[Op]) -> tuple[str, ...]:
    """The attributes that are declared to hold a graph."""
    return tuple(f.name for f in attributes_of(cls) if "Graph" in str(f.type))


def require(condition: bool, message: str, hint: str | None = None) -> None:
    """Guard of a type rule."""
    if not condition:
        raise TypeRuleError(message, hint=hint)


def tensor(type_: Type, what: str = "operand") -> Tensor:
    """The operand as a plain tensor type, or a refusal."""
    if not isinstance(type_, Tensor):
        raise TypeRuleError(f"{what} must be a tensor, not {type_}")
    return type_


def load_ops() -> dict[str, type[Op]]:
    """Import every family; returns the registry."""
    for module in FAMILY_MODULES:
        importlib.import_module(f"effcc.ops.{module}")
    return REGISTRY


def op_class(name: str) -> type[Op]:
    """The class of an op by name; UnsupportedError where there is none."""
    if name not in REGISTRY:
        load_ops()
    if name not in REGISTRY:
        import difflib

        near = difflib.get_close_matches(name, REGISTRY, 1)
        raise UnsupportedError(
            f"there is no op {name!r}", hint=f"did you mean {near[0]!r}?" if near else "see `effcc ops`"
        )
    return REGISTRY[name]
