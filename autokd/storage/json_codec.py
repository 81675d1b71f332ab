"""Encode values as strict JSON: NaN and infinity, which JSON lacks, become ``{"float": "nan"}``.

Python's own encoder writes NaN as a bare word. Databases keep that, but the dashboard's page, which reads attributes
with a strict parser, fails on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_KEY = "float"


def to_json(value: Any) -> Any:
    """Encode a value for ``json.dumps(allow_nan=False)``.

    Args:
        value: None, text, numbers (NumPy's scalars too), mappings and sequences of them.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else {_KEY: str(number)}


def from_json(value: Any) -> Any:
    """Decode a value of ``to_json``; tuples come back as lists.

    Args:
        value: value as the json module read it.
    """
    if isinstance(value, dict):
        if value.keys() == {_KEY} and isinstance(value[_KEY], str):
            return float(value[_KEY])
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value
