"""Global prototypes and the reliability that follows from them (Global Knowledge)."""

from __future__ import annotations

from autokd.spec.operator import LOGITS, SCALAR_MAP, Operator, Parameter
from autokd.spec.tables.sources.maps import OWN_LEVEL

_MODULE = "autokd.distill.sources.prototypes"
_PROTOTYPES = Parameter("prototypes", 10, 1, 64, "prototypes of each class and level")
_EVERY_LEVEL = Parameter(
    "every_level", 0, 0, 1,
    "1: every box is an instance of every paired level, 0: of the level of its size alone",
    omitted_at_default=True,
)  # fmt: skip

ROWS: tuple[Operator, ...] = (
    Operator(
        "reliable_foreground", "source", f"{_MODULE}:ReliableForeground",
        formula="r F|fg",
        meaning=(
            "the cells inside boxes, weighted by the reliability of the instance: student and teacher find it "
            "equally close to the prototypes of its class"
        ),
        paper="Global Knowledge, arXiv:2210.09022, eq. 8", needs_taps=("fpn",), by_level=True,
        parameters=(_PROTOTYPES, OWN_LEVEL, _EVERY_LEVEL), learns=True,
    ),
    Operator(
        "prototypes", "source", f"{_MODULE}:PrototypeAlignment",
        formula="r cos(x, p_1), ..., r cos(x, p_P)",
        meaning="the cosines of each instance to the prototypes of all classes, times the instance's reliability",
        paper="Global Knowledge, arXiv:2210.09022, eq. 9", needs_taps=("fpn",), gives=SCALAR_MAP,
        parameters=(_PROTOTYPES, _EVERY_LEVEL), learns=True,
    ),
    Operator(
        "reliable_logits", "source", f"{_MODULE}:ReliableLogits",
        formula="r Z|positive",
        meaning="the class logits of positive candidates, weighted by the reliability of their object",
        paper="Global Knowledge, arXiv:2210.09022, section 3.3", gives=LOGITS, channels_are="classes",
        needs_taps=("fpn", "class_logits", "boxes"), parameters=(_PROTOTYPES, _EVERY_LEVEL), learns=True,
    ),
)  # fmt: skip
