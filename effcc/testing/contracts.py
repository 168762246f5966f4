"""What a pass promises, read from its `contract`, so that the harness can hold it to that.

    contract := clause [";" clause]...
    clause   := exact | bounded | refines | quantized | approximate | idempotent
              | (exact | bounded | refines | quantized) "when" settings
    settings := option=value [" and " option=value]...        options as in a pipeline's text

    >>> Contract.of("approximate; exact when density=1.0; idempotent")
    Contract(general='approximate', special=(('exact', ('density=1.0',)),), idempotent=True, drawn=())
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from effcc.errors import EffccError
from effcc.pipeline import Pass, with_options

EQUALITIES = ("exact", "bounded", "refines")
"""What a result may be held against the original's by; "approximate" promises types and a value, no more."""


@dataclass(frozen=True)
class Contract:
    """general: what holds with any options. special: (what holds, with which options). idempotent: a second run finds
    nothing left to change, so that inputs which have the form already are left exactly as they are. drawn: (what holds,
    on graphs of which method, with which options)."""

    general: str = "exact"
    special: tuple[tuple[str, tuple[str, ...]], ...] = ()
    idempotent: bool = False
    drawn: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    @staticmethod
    def of(text: str) -> Contract:
        """The contract that a text declares. Raises EffccError where it is none that can be checked."""
        general, special, drawn, idempotent = None, [], [], False
        for clause in (part.strip() for part in text.split(";")):
            head, when, rest = clause.partition(" when ")
            head, on, method = head.partition(" on ")
            settings = tuple(s.strip() for s in rest.split(" and ")) if when else ()
            if clause == "idempotent":
                idempotent = True
            elif clause in (*EQUALITIES, "quantized", "approximate"):
                general = clause
            elif on and head in EQUALITIES and all("=" in s for s in settings):
                drawn.append((head, method.strip(), settings))
            elif when and head in (*EQUALITIES, "quantized") and all("=" in s for s in settings):
                special.append((head, settings))
            else:
                raise EffccError(f"a contract cannot say {clause!r}",
                                 hint="exact, bounded, refines, quantized, approximate, idempotent, "
                                      "or exact when option=value")
        return Contract(general or "approximate", tuple(special), idempotent, tuple(drawn))

    def promises(self, p: Pass) -> list[tuple[Pass, str]]:
        """The pass as it is with its general promise, then with the options of each special one."""
        return [(p, holds(p)), *((with_options(p, settings), equality) for equality, settings in self.special)]


def covers_special(p: Pass, fired: Collection[str]) -> bool:
    """Whether what a pass promises covers NaN and infinities, where rules of these names (its own, or names that it
    gave its rewrites) fired."""
    return not fired or p.special_inputs and all(rule.special_inputs for rule in p.rules if rule.name in fired)


def holds(p: Pass) -> str:
    """What the pass promises with the options that it has."""
    contract = Contract.of(p.contract)
    kept = (equality for equality, settings in contract.special if with_options(p, settings) == p)
    return next(kept, contract.general)
