"""Class logits, boxes and edges: their sources, transformations and distances."""

from __future__ import annotations

from autokd.spec.operator import Operator

ROWS: tuple[Operator, ...] = ()
