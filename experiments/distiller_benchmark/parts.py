"""Does what pays on the whole table pay on its parts? Samplers compared on halves of the space.

    python experiments/distiller_benchmark/parts.py [--repeats 40] [--samplers mcts mcts_prior random tpe]

Each part is a space of its own, in which a search knows nothing of the rest; its top 1% is that of the part. Options
are those of compare.py. Writes parts.json and README.md's table of it.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from compare import compare, comparison_parser
from on_table import Report, report_on_table

FEATURES, SOFT = ("none", "standardise"), ("softmax_cells", "softmax_channels")
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "whole map, foreground": {"source": ("whole", "foreground")},
    "reliable foreground, logits": {"source": ("reliable_foreground", "class_logits")},
    "all but the whole map": {"source": ("foreground", "reliable_foreground", "class_logits")},
    "L1, L2": {"distance": ("l1", "l2")},
    "cosine, Pearson, KL": {"distance": ("cosine", "pearson", "kl")},
    "no softmax": {"normalise": FEATURES},
    "always normalised": {"normalise": ("standardise", *SOFT)},
    "no attention": {"attention": ("none",)},
    "always attention": {"attention": ("spatial_attention", "channel_attention")},
}


def compare_parts(options: argparse.Namespace) -> Report:
    parts: list[dict[str, Any]] = []
    for name, only in PARTS.items():
        options.only = tuple(only.items())
        report = compare(options)
        kept = ("num_top", "best_score", "reward_score_correlation", "ratios", "rows")
        parts.append({"part": name, "only": only, "specs": report["table"]["specs"]} | {k: report[k] for k in kept})
    shared = {key: report[key] for key in ("commit", "table", "optuna", "settings")}
    del shared["table"]["specs"], shared["settings"]["only"]
    for part in parts:
        # Curves are the whole comparison's matter.
        part["rows"] = [{k: v for k, v in row.items() if "curve" not in k} for row in part["rows"]]
    return shared | {"parts": parts}


def table_text(report: Report) -> list[str]:
    """Lines of Markdown: medians of trials to the top 1% by full training, with their intervals."""
    samplers = list(dict.fromkeys(row["sampler"] for row in report["parts"][0]["rows"]))
    lines = [
        "| part (distillers, best gain) | workers | " + " | ".join(samplers) + " |",
        "|---|---" + "|---" * len(samplers) + "|",
    ]
    for part in report["parts"]:
        for workers in dict.fromkeys(row["workers"] for row in part["rows"]):
            found = {row["sampler"]: row["trials_full"] for row in part["rows"] if row["workers"] == workers}
            cells = [
                f"{found[name]['median']:.1f} [{found[name]['median_95'][0]:.0f}, {found[name]['median_95'][1]:.0f}]"
                for name in samplers
            ]
            about = f"{part['part']} ({part['specs']}, {part['best_score']:+.3f})"
            lines.append(f"| {about} | {workers} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    parser = comparison_parser(__doc__)
    parser.set_defaults(repeats=40, samplers=["mcts", "mcts_prior", "random", "tpe"], workers=[1, 16])
    return 0 if report_on_table("parts", parser.parse_args(), compare_parts, table_text) else 2


if __name__ == "__main__":
    sys.exit(main())
