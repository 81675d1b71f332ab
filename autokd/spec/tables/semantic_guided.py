"""Regions matched softly with all levels of the student (G-DetKD)."""

from __future__ import annotations

from autokd.spec.operator import Operator

ROWS: tuple[Operator, ...] = ()
