"""The scratch folder in which any number of processes gather the trainings of an experiment.

It holds ``plan.json`` (the space and the recipes that are recorded: a process with others is refused), one file in
``results/`` for each training that ended, and one in ``claims/`` for each that was begun. A claim is the system's lock
on its file, which a process loses by dying: its training is then taken again by the next who asks.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autokd.benchmark import recipe_digest
from autokd.benchmark.identity import text_digest
from autokd.config import ResolvedConfig, config_data
from autokd.documents import dump_yaml
from autokd.errors import BenchmarkError
from autokd.outcomes import TRAINING_VERSION, Job, Outcome, RecipeName
from autokd.storage import write_text_atomically
from autokd.storage.record import outcome_from_plain, outcome_to_plain

ITS_OWN_FAULT = ("non_finite", "cannot_build")
"""Failures that are a distiller's result. Others (memory, time, a bug) say nothing of it and are tried again."""


class Scratch:
    """A scratch folder; BenchmarkError if it was begun with another space or version of the training, or another form
    of one of ``recipes``."""

    def __init__(self, folder: Path, config: ResolvedConfig, recipes: Sequence[RecipeName] = ()) -> None:
        self.folder = folder
        for name in ("claims", "results", "failed"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        plan = {
            "space_digest": text_digest(dump_yaml(config_data(config)["space"])),
            "training_version": TRAINING_VERSION,
        } | {f"{recipe}_digest": recipe_digest(config, recipe) for recipe in recipes}
        path = folder / "plan.json"
        begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for key, value in plan.items():
            if begun.get(key, value) != value:
                raise BenchmarkError(
                    f"{folder}: begun with {key} {begun[key]}, this file and this AutoKD have {value}: the numbers "
                    "would not fit together. Take another scratch folder, or the file and commit of before."
                )
        if begun != begun | plan:
            write_text_atomically(path, json.dumps(begun | plan) + "\n")

    @contextmanager
    def claim(self, job: Job) -> Iterator[bool]:
        """Hold a training for the block; False if another process holds it, or it has ended meanwhile."""
        with (self.folder / "claims" / job.id).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield not self._result(job.id).exists()

    def is_claimed(self, job: Job) -> bool:
        """Whether a living process is at it."""
        path = self.folder / "claims" / job.id
        if not path.exists():
            return False
        with path.open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def save(self, outcome: Outcome, about: Mapping[str, Any]) -> bool:
        """Keep how a training ended; False if it failed through no fault of its distiller, and is not done."""
        counts = outcome.status == "finished" or outcome.cause in ITS_OWN_FAULT
        path = self._result(outcome.job_id) if counts else self.folder / "failed" / f"{outcome.job_id}.json"
        data = {"outcome": outcome_to_plain(outcome), "training_version": TRAINING_VERSION, **about}
        write_text_atomically(path, json.dumps(data) + "\n")
        if counts:
            (self.folder / "failed" / f"{outcome.job_id}.json").unlink(missing_ok=True)
        return counts

    def finished_ids(self) -> set[str]:
        return {path.stem for path in (self.folder / "results").glob("*.json")}

    def begun_recipes(self) -> list[RecipeName]:
        """Those of which trainings were asked for here."""
        plan = json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))
        return [recipe for recipe in ("proxy", "full") if f"{recipe}_digest" in plan]

    def read(self) -> tuple[dict[str, Outcome], set[str], set[str]]:
        """Outcomes by job id, commits and machines."""
        outcomes, commits, machines = {}, set(), set()
        for path in sorted((self.folder / "results").glob("*.json")):
            data = json.loads(path.read_text(encoding="utf-8"))
            outcomes[path.stem] = outcome_from_plain(data["outcome"])
            commits.add(str(data["commit"]))
            machines.add(str(data["machine"]))
        return outcomes, commits, machines

    def commits(self) -> dict[str, str]:
        """The commit by which each training was made, by job id."""
        paths = sorted((self.folder / "results").glob("*.json"))
        return {path.stem: str(json.loads(path.read_text(encoding="utf-8"))["commit"]) for path in paths}

    def _result(self, job_id: str) -> Path:
        return self.folder / "results" / f"{job_id}.json"
