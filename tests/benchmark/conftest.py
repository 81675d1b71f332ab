"""Makes ``benchmark_samples`` and the experiment's scripts importable."""

from __future__ import annotations

import sys
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path[:0] = [str(Path(__file__).parent), str(EXPERIMENTS), str(EXPERIMENTS / "distiller_benchmark")]
