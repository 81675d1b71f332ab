"""Files of jobs in the run directory."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from autokd.jobs import Job

PROMOTED_FOLDER = "promoted"
"""Name of the folder with a folder for each promoted student, which bears the digest of its weights."""


class JobFiles:
    """The files that one job writes, and the promoted student that it reads.

    Attributes:
        artifacts: path of each file written so far, relative to the run directory, by its name in the outcome.
        run_dir: the run directory.
        promoted_folder: folder of the student that teaches in this job; None if none does.
    """

    def __init__(self, run_dir: Path, job: Job) -> None:
        self.artifacts: dict[str, str] = {}
        self.run_dir = run_dir
        self.promoted_folder = run_dir / PROMOTED_FOLDER / job.promoted if job.promoted else None
        # Job ids of experiments hold slashes and spaces.
        self._folder = Path("jobs") / re.sub(r"[^\w.-]", "_", job.id)

    def keep(self, name: str, file_name: str, write: Callable[[Path], None]) -> None:
        """Write a file and list it among the artifacts.

        Args:
            name: its name in the outcome.
            file_name: its name in the job's folder.
            write: writes to the path that it is given, atomically.
        """
        path = self._folder / file_name
        write(self.run_dir / path)
        self.artifacts[name] = str(path)
