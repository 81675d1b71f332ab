"""TensorBoard's event files in ``tensorboard/`` of the run directory, by torch's ``SummaryWriter``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from autokd.errors import needs_extra
from autokd.tracking.contract import RunSummary, TrackedJob, TrackedRun, Tracker

FOLDER = "tensorboard"
RESULTS = "results"


class TensorBoardTracker(Tracker):
    """A folder of events a training, ``GROUP/JOB``, and ``results`` with the table and the pictures."""

    def __init__(self, run: TrackedRun) -> None:
        self.check_installed()
        self._folder = run.directory / FOLDER
        self._writers: dict[str, Any] = {}

    @classmethod
    def check_installed(cls) -> None:
        """See ``Tracker.check_installed``."""
        with needs_extra("tensorboard", "tensorboard"):
            from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    def job_started(self, job: TrackedJob) -> None:
        """Write formula and parameters."""
        writer = self._writer(f"{job.group}/{job.id}")
        writer.add_text("formula", job.formula)

    def epoch(self, job: TrackedJob, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        writer = self._writer(f"{job.group}/{job.id}")
        for name, value in metrics.items():
            writer.add_scalar(name, value, epoch)

    def job_ended(self, job: TrackedJob, status: str, seconds: float, metrics: Mapping[str, float]) -> None:
        """Write the row of the table of parameters, and close the file."""
        from torch.utils.tensorboard.summary import hparams

        writer = self._writer(f"{job.group}/{job.id}")
        about = {**job.parameters, "status": status, "formula": job.formula}
        for summary in hparams(about, dict(metrics) | {"seconds": seconds}):
            # Into the job's own file: ``SummaryWriter.add_hparams`` would open a folder a job more.
            writer.file_writer.add_summary(summary)
        for name, value in (dict(metrics) | {"seconds": seconds}).items():
            writer.add_scalar(f"end/{name}", value)
        self._writers.pop(f"{job.group}/{job.id}").close()

    def finish(self, summary: RunSummary) -> None:
        """Write table, rewards and pictures."""
        import numpy as np
        from PIL import Image

        writer = self._writer(RESULTS)
        writer.add_text("results", summary.table_markdown)
        for number, reward in enumerate(summary.rewards.values()):
            writer.add_scalar("reward of trials", reward, number)
        for name, content in summary.pictures.items():
            with Image.open(io.BytesIO(content)) as picture:
                writer.add_image(name, np.asarray(picture.convert("RGB")), dataformats="HWC")

    def close(self, *, is_complete: bool) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _writer(self, name: str) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]
