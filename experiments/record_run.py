"""Copies the record of a run into a folder of ``experiments/``: results, configuration, distiller, trials.

    python experiments/record_run.py runs/bccd-fcos experiments/bccd

Run it at the repository's root. Weights, databases, detections and report.html stay in the run directory, since they
are large; ``autokd report RUN`` writes the report again.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from autokd.storage import open_existing, read_record

FILES = ("results.json", "config.yaml", "best_distiller.yaml")
COLUMNS = ("number", "state", "value", "seconds", "cause", "reused_from", "preset", "digest", "formula")


def main(run: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (folder / name).write_text(_without_places((run / name).read_text(encoding="utf-8")), encoding="utf-8")
    metrics = ("val_loss", "cka", "ap")
    with (folder / "trials.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*COLUMNS, *metrics])
        for trial in open_existing(run).trials:
            record = read_record(trial)
            outcome = record.outcome
            writer.writerow(
                [
                    trial.number,
                    trial.state.name.lower(),
                    "" if trial.value is None else f"{trial.value:.6g}",
                    "" if outcome is None else f"{outcome.seconds:.2f}",
                    "" if outcome is None else outcome.cause or "",
                    "" if record.reused_from is None else record.reused_from,
                    trial.user_attrs.get("preset", ""),
                    record.digest,
                    record.formula,
                    *(f"{outcome.metrics[m]:.6g}" if outcome and m in outcome.metrics else "" for m in metrics),
                ]
            )


def _without_places(text: str) -> str:
    """Return the text with paths relative to the repository's root: those of this machine exist nowhere else."""
    here = Path.cwd()
    return text.replace(f"{here}/", "").replace(f"{here.parent}/", "../")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
