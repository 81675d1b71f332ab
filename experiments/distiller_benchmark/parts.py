"""Does what pays on the whole table pay on its parts? Samplers compared on halves of the space.

    python experiments/distiller_benchmark/parts.py [--repeats 40] [--samplers mcts mcts_prior random tpe]

Each part is a space of its own: a search sees nothing of the rest, and its top 1% is that of the part. Writes
parts.json and its table in README.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autokd.benchmark.markdown import markdown_table
from autokd.benchmark.simulation import SAMPLERS
from autokd.benchmark.simulation.comparison import Plan, Settings, compare_samplers
from autokd.benchmark.simulation.reports import Report, median_text
from autokd.benchmark.simulation.scripts import parser_of, run_script

FEATURES, SOFT = ("none", "standardize"), ("softmax_cells", "softmax_channels")
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "whole map, foreground": {"source": ("feature_map", "foreground")},
    "reliable foreground, logits": {"source": ("reliable_foreground", "class_logits")},
    "all but the whole map": {"source": ("foreground", "reliable_foreground", "class_logits")},
    "L1, L2": {"distance": ("l1", "l2")},
    "cosine, Pearson, KL": {"distance": ("cosine", "pearson", "kl")},
    "no softmax": {"normalize": FEATURES},
    "always normalized": {"normalize": ("standardize", *SOFT)},
    "no attention": {"attention": ("none",)},
    "always attention": {"attention": ("spatial_attention", "channel_attention")},
}


def compare_parts(options: argparse.Namespace) -> Report:
    settings = Settings(str(options.table), tuple(options.reward), trials=options.trials, epochs=options.epochs)
    plan = Plan(tuple(options.samplers), tuple(options.workers), options.repeats, options.processes)
    parts: list[dict[str, Any]] = []
    for name, only in PARTS.items():
        report = compare_samplers(replace(settings, only=tuple(only.items())), plan)
        kept = ("num_top", "best_score", "reward_score_correlation", "ratios", "rows")
        parts.append({"part": name, "only": only, "specs": report["table"]["specs"]} | {k: report[k] for k in kept})
    shared = {key: report[key] for key in ("commit", "table", "optuna", "settings")}
    del shared["table"]["specs"], shared["settings"]["only"]
    for part in parts:
        # Curves are those of the whole comparison; here they would make most of the file.
        part["rows"] = [{k: v for k, v in row.items() if "curve" not in k} for row in part["rows"]]
    return shared | {"parts": parts}


def table_text(report: Report) -> list[str]:
    """Return the medians of trials to the top 1% by full training, with their intervals."""
    samplers = list(dict.fromkeys(row["sampler"] for row in report["parts"][0]["rows"]))
    rows = []
    for part in report["parts"]:
        for workers in dict.fromkeys(row["workers"] for row in part["rows"]):
            found = {row["sampler"]: row["trials_full"] for row in part["rows"] if row["workers"] == workers}
            about = f"{part['part']} ({part['specs']}, {part['best_score']:+.3f})"
            rows.append([about, workers, *(median_text(found[name]) for name in samplers)])
    return markdown_table(["part (distillers, best gain)", "workers", *samplers], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = parser_of(__doc__, Path(__file__).parent)
    parser.set_defaults(repeats=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--samplers", nargs="+", default=["mcts", "mcts_prior", "random", "tpe"], choices=[*SAMPLERS])
    parser.add_argument("--trials", type=int, default=120, help="evaluated specs of a search at most")
    parser.add_argument("--processes", type=int, default=2)
    return run_script("parts", parser.parse_args(arguments), compare_parts, table_text)


if __name__ == "__main__":
    sys.exit(main())
