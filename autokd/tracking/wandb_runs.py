"""Weights & Biases: a run for every training, grouped by the search, and one with the results.

Without an account (WANDB_API_KEY, ``wandb login``) and without WANDB_MODE the runs are written offline, into ``wandb/``
of the run directory; ``wandb sync`` uploads them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from autokd.errors import needs_extra
from autokd.tracking.contract import RunSummary, TrackedJob, TrackedRun, Tracker

RESULTS = "results"


class WandbTracker(Tracker):
    """Runs that are open at the same time, since workers train at the same time."""

    def __init__(self, run: TrackedRun) -> None:
        self.check_installed()
        self._run = run
        self._runs: dict[str, Any] = {}
        self._mode = os.environ.get("WANDB_MODE") or ("online" if _has_account() else "offline")

    @classmethod
    def check_installed(cls) -> None:
        """See ``Tracker.check_installed``."""
        with needs_extra("wandb", "wandb"):
            import wandb  # noqa: F401

    def job_started(self, job: TrackedJob) -> None:
        """Open the training's run, with formula and parameters as its configuration."""
        self._runs[job.id] = self._open(job.id, job.group, {**job.parameters, "formula": job.formula})

    def epoch(self, job: TrackedJob, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        self._runs[job.id].log({**metrics, "epoch": epoch})

    def job_ended(self, job: TrackedJob, status: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """Write the summary, and close the run."""
        run = self._runs.pop(job.id)
        run.summary.update({"status": status, "seconds": seconds, **{f"end/{k}": v for k, v in metrics.items()}})
        run.finish(exit_code=int(status == "failed"), quiet=True)

    def finish(self, summary: RunSummary) -> None:
        """Write table, rewards, pictures and files into a run of their own."""
        import io

        import wandb
        from PIL import Image

        run = self._open(RESULTS, RESULTS, dict(self._run.config))
        columns: list[str | int] = list(dict.fromkeys(name for row in summary.rows for name in row))
        rows = [[row.get(str(name)) for name in columns] for row in summary.rows]
        logged: dict[str, Any] = {"results": wandb.Table(columns=columns, data=rows)}
        if summary.rewards:
            rewards = [list(pair) for pair in summary.rewards.items()]
            logged["trials"] = wandb.Table(columns=["job", "reward"], data=rewards)
        for name, content in summary.pictures.items():
            logged[f"pictures/{name}"] = wandb.Image(Image.open(io.BytesIO(content)))
        run.log(logged)
        for file in summary.files:
            run.save(str(file), base_path=str(file.parent), policy="now")
        run.finish(quiet=True)

    def close(self, *, is_complete: bool) -> None:
        """Close the runs of trainings that were interrupted."""
        for run in self._runs.values():
            run.finish(exit_code=1, quiet=True)
        self._runs.clear()

    def _open(self, name: str, kind: str, config: Mapping[str, Any]) -> Any:
        import wandb

        # An id of the run's own mark, so that a training that a resumed run begins again goes on in the same place.
        run_id = hashlib.sha256(f"{self._run.owner} {name}".encode()).hexdigest()[:16]
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT") or "autokd",
            dir=str(self._run.directory),
            id=run_id,
            name=name,
            group=self._run.name,
            job_type=kind,
            config=dict(config),
            mode=self._mode,  # type: ignore[arg-type]
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )


def _has_account() -> bool:
    import wandb

    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)
