"""Regions against negatives: the contrastive source and its distances (G-DetKD)."""

from __future__ import annotations

from autokd.spec.operator import Operator

ROWS: tuple[Operator, ...] = ()
