"""Global prototypes and the reliability that they give (Distilling Object Detectors with Global Knowledge)."""

from __future__ import annotations

from autokd.spec.operator import Operator

ROWS: tuple[Operator, ...] = ()
