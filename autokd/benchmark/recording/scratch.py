"""The scratch folder in which any number of processes gather the trainings of an experiment.

``plan.json`` holds the space and the recipes that are recorded; ``results/`` has a file for each training that ended,
``failed/`` one for each that is to be tried again, ``claims/`` one for each that was begun. A claim is the operating
system's lock on its file. A process loses its locks when it dies, so its training is taken by the next one that asks.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autokd.benchmark.identity import recipe_digest
from autokd.config import ResolvedConfig, config_data
from autokd.documents import dump_yaml
from autokd.errors import BenchmarkError
from autokd.files import text_digest, write_text_atomically
from autokd.jobs import RECURRING_CAUSES, TRAINING_VERSION, Job, Outcome, RecipeName
from autokd.locks import without_following
from autokd.storage.record import outcome_from_json, outcome_to_json


class Scratch:
    """Claims and results of one experiment."""

    def __init__(self, folder: Path, config: ResolvedConfig, recipes: Sequence[RecipeName] = ()) -> None:
        """Open the folder, or begin it.

        Args:
            folder: the scratch folder; made if it is missing.
            config: space and recipes of the trainings.
            recipes: recipes of the trainings that this process records. A recipe that nobody records yet may still
                change.

        Raises:
            BenchmarkError: if the folder was begun with another space, another version of the training, or another
                form of one of ``recipes``.
        """
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
        """Hold a training for the block.

        Yields:
            False if another process holds the training or it has ended; the block must not train it then.
        """
        # The lock lives as long as the open file, so the file stays open for the block. Nothing removes a claim's
        # file: a second process could otherwise lock a file of that name that the first one no longer sees.
        with open(self.folder / "claims" / job.id, "a", opener=without_following) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            # Looked at under the lock: the training may have ended between the caller's look and the lock.
            yield not self._result(job.id).exists()

    def is_claimed(self, job: Job) -> bool:
        """Return whether a living process holds the training."""
        path = self.folder / "claims" / job.id
        if not path.exists():
            return False
        with path.open("r") as lock:
            try:
                # A shared lock, so that two processes that only look do not take each other for the holder.
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def save(self, outcome: Outcome, about: Mapping[str, Any]) -> bool:
        """Write the outcome of a training.

        Args:
            outcome: how it ended.
            about: "commit" and "machine" of the training.

        Returns:
            False if the training failed for a reason outside its distiller; it will be tried again.
        """
        is_result = outcome.status == "finished" or outcome.cause in RECURRING_CAUSES
        path = self._result(outcome.job_id) if is_result else self.folder / "failed" / f"{outcome.job_id}.json"
        data = {"outcome": outcome_to_json(outcome), "training_version": TRAINING_VERSION, **about}
        write_text_atomically(path, json.dumps(data) + "\n")
        if is_result:
            (self.folder / "failed" / f"{outcome.job_id}.json").unlink(missing_ok=True)
        return is_result

    def finished_ids(self) -> set[str]:
        """Return the ids of the jobs that have ended."""
        return {path.stem for path in (self.folder / "results").glob("*.json")}

    def num_failed(self) -> int:
        """Return the number of trainings that failed and will be tried again."""
        return len(list((self.folder / "failed").iterdir()))

    def begun_recipes(self) -> list[RecipeName]:
        """Return the recipes of which trainings were asked for here."""
        plan = json.loads((self.folder / "plan.json").read_text(encoding="utf-8"))
        return [recipe for recipe in ("proxy", "full") if f"{recipe}_digest" in plan]

    def read(self) -> tuple[dict[str, Outcome], set[str], set[str]]:
        """Return the outcomes by job id, the commits that made them, and the machines."""
        outcomes, commits, machines = {}, set(), set()
        for path in sorted((self.folder / "results").glob("*.json")):
            data = json.loads(path.read_text(encoding="utf-8"))
            outcomes[path.stem] = outcome_from_json(data["outcome"])
            commits.add(str(data["commit"]))
            machines.add(str(data["machine"]))
        return outcomes, commits, machines

    def commits(self) -> dict[str, str]:
        """Return the commit that made each training, by job id."""
        return {job_id: str(data["commit"]) for job_id, data in self._results()}

    def _results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted((self.folder / "results").glob("*.json")):
            yield path.stem, json.loads(path.read_text(encoding="utf-8"))

    def _result(self, job_id: str) -> Path:
        return self.folder / "results" / f"{job_id}.json"
