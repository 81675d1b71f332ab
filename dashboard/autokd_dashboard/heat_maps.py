"""Heat maps of feature maps that a run has written: ``heat_maps/heat_maps.json`` and its pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[\w.-]+\.(png|jpg)")


def heat_maps_of(run_dir: Path) -> list[dict[str, Any]]:
    """Return the heat maps of a run: for each image and level its caption, and a picture for each detector.

    Args:
        run_dir: run directory.
    """
    try:
        data = json.loads((run_dir / "heat_maps" / "heat_maps.json").read_text(encoding="utf-8"))
        return [_row(each) for each in data["rows"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _row(data: dict[str, Any]) -> dict[str, Any]:
    pictures = {str(name): str(file) for name, file in data["pictures"].items() if _NAME.fullmatch(str(file))}
    return {"caption": str(data["caption"]), "pictures": pictures}
