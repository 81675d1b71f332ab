"""``progress.json``: how far a run is, written while it runs, for pages and services that watch it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from autokd.files import write_text_atomically

PROGRESS_NAME = "progress.json"
_SCHEMA = 1


class StageProgress(BaseModel):
    """One stage of a run, such as "teacher" or "trials"."""

    model_config = ConfigDict(frozen=True)

    name: str
    """Name of the stage."""
    done: int
    """Steps done."""
    total: int
    """Steps of the whole stage."""
    began_s: float
    """Time of its first news, in seconds since 1970."""
    first_done: int
    """Steps that were done at that time, by earlier processes or from caches."""
    updated_s: float
    """Time of its last news."""

    @property
    def left_s(self) -> float | None:
        """Seconds until its end at its present rate; None: not known yet, 0: it is over."""
        if self.done >= self.total:
            return 0.0
        steps = self.done - self.first_done
        return None if steps <= 0 else (self.updated_s - self.began_s) / steps * (self.total - self.done)


class RunProgress(BaseModel):
    """How far a run is."""

    model_config = ConfigDict(frozen=True)

    schema_: int = _SCHEMA
    began_s: float
    """Start of the process that works on the run, in seconds since 1970."""
    updated_s: float
    """Time of the last news."""
    is_over: bool = False
    """Whether that process has ended, well or not."""
    stages: tuple[StageProgress, ...] = ()
    """Stages in the order in which they began."""
    best: float | None = None
    """Best reward so far; None before the first."""
    best_trial: int | None = None
    """Number of its trial."""
    best_formula: str = ""
    """Its distiller as one line."""
    said: tuple[str, ...] = ()
    """The last lines that the run said."""

    @property
    def present(self) -> StageProgress | None:
        """The stage that had the last news."""
        return max(self.stages, key=lambda stage: stage.updated_s, default=None)

    def summary(self) -> dict[str, Any]:
        """Return what a list of runs shows, as plain data."""
        stage = self.present
        trials = next((each for each in self.stages if each.name == "trials"), None)
        return {
            "stage": None if stage is None else stage.name,
            "done": None if stage is None else stage.done,
            "total": None if stage is None else stage.total,
            "left_s": None if stage is None else stage.left_s,
            "trials_done": None if trials is None else trials.done,
            "best": self.best,
            "best_trial": self.best_trial,
            "best_formula": self.best_formula,
        }

    def write(self, run_dir: Path) -> None:
        """Write the file; a reader sees the old one or the new one.

        Args:
            run_dir: run directory.
        """
        write_text_atomically(run_dir / PROGRESS_NAME, self.model_dump_json() + "\n")

    @classmethod
    def read(cls, run_dir: Path) -> RunProgress | None:
        """Return the progress of a run; None: there is none yet, or it cannot be read.

        Args:
            run_dir: run directory.
        """
        try:
            data = json.loads((run_dir / PROGRESS_NAME).read_text(encoding="utf-8"))
            return cls.model_validate(data)
        except (OSError, ValueError, ValidationError):
            return None
