"""Transformations of Auto-KD's third kind: relations between channels, samples, cells, regions and classes."""

from __future__ import annotations

from autokd.spec.operator import Operator

ROWS: tuple[Operator, ...] = ()
