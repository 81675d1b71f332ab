"""Makes ``benchmark_samples`` and the experiment's scripts importable."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "experiments" / "distiller_benchmark")]
