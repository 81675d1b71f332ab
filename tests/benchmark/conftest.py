"""Makes the experiments' scripts importable."""

from __future__ import annotations

import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = (EXPERIMENTS, EXPERIMENTS / "distiller_benchmark", EXPERIMENTS / "bccd")
sys.path[:0] = map(str, SCRIPTS)
