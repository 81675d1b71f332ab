"""A recorded table of distillers: every spec of a space with how its trainings ended. A search on it trains nothing.

``load_benchmark`` reads a table and refuses one that was made for something else; ``DistillerBenchmark.lookup``
answers a spec; ``BenchmarkEvaluatorFactory`` answers jobs, for a ``runtime.SimulatedRuntime``. Torch-free.
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
