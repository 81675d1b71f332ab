"""A recorded table of distillers: every spec of a space with the outcomes of its trainings.

``load_benchmark`` reads a table and refuses one that was made for something else; ``DistillerBenchmark.lookup`` returns
the row of a spec; ``BenchmarkEvaluatorFactory`` answers jobs from the table, for a ``runtime.SimulatedRuntime``. All of
this is torch-free. ``recording`` trains what a table needs, ``simulation`` searches on a table; both import torch, so
they are not imported here.
"""

from autokd.benchmark.file import load_benchmark, save_benchmark
from autokd.benchmark.identity import Header, current_commit, make_header, recipe_digest
from autokd.benchmark.replay import BenchmarkEvaluatorFactory
from autokd.benchmark.table import BenchmarkRow, DistillerBenchmark

__all__ = [
    "BenchmarkEvaluatorFactory",
    "BenchmarkRow",
    "DistillerBenchmark",
    "Header",
    "current_commit",
    "load_benchmark",
    "make_header",
    "recipe_digest",
    "save_benchmark",
]
