"""Values as strict JSON: NaN and infinity, which JSON has no words for, become ``{"float": "nan"}``.

Databases keep such text, but the dashboard's page could not read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_KEY = "float"


def to_json(value: Any) -> Any:
    """Mappings, sequences and numbers (NumPy's scalars too) as what ``json.dumps(allow_nan=False)`` takes."""
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
    """The inverse of ``to_json``; tuples come back as lists."""
    if isinstance(value, dict):
        if value.keys() == {_KEY} and isinstance(value[_KEY], str):
            return float(value[_KEY])
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    return value
