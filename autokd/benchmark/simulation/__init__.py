"""Searches on a recorded table, simulated in about a second each, and the comparison of samplers by them.

``Truth`` is what the table says of every distiller, ``run_search`` one search on a virtual clock, ``comparison`` many
of them.
"""

from autokd.benchmark.simulation.samplers import SAMPLERS
from autokd.benchmark.simulation.search import Trace, run_search
from autokd.benchmark.simulation.truth import Truth, cut_after

__all__ = ["SAMPLERS", "Trace", "Truth", "cut_after", "run_search"]
