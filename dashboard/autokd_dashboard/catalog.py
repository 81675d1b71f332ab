"""What pages need to know of runs, whoever keeps them: a service with many, or one run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autokd.errors import AutoKDError
from autokd.storage import Results, RunProgress

SINGLE_ID = "run"
"""Id of the run of a catalog of one."""
STALE_S = 600.0
"""Seconds without news after which a run that has not ended counts as interrupted."""


class NoRunError(AutoKDError):
    """There is no run of an id."""


class RefusedError(AutoKDError):
    """A verb is not allowed, or does not fit the state of a run."""


@dataclass(frozen=True, slots=True)
class RunCard:
    """A run in a list. Times are in seconds since 1970, AP in [0, 1]; the fields are those of the REST interface."""

    id: str
    name: str
    state: str
    owner: str = ""
    message: str = ""
    trials: int = 0
    trials_done: int | None = None
    stage: str | None = None
    stage_done: int | None = None
    stage_total: int | None = None
    left_s: float | None = None
    best: float | None = None
    best_formula: str = ""
    winner: str | None = None
    winner_ap: float | None = None
    none_ap: float | None = None
    created_s: float = 0.0
    started_s: float | None = None
    ended_s: float | None = None
    running_s: float = 0.0
    cost: float | None = None
    run_dir: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is queued, runs or ends."""
        return self.state in ("queued", "running", "stopping")

    @property
    def share_done(self) -> float:
        """Part of the search that is done, from 0 to 1."""
        return min(1.0, (self.trials_done or 0) / self.trials) if self.trials else 0.0


class Catalog(Protocol):
    """Runs, for one user."""

    is_single: bool
    """Whether there is one run alone, and no list."""
    user: str
    """Name of the user; empty: there are none."""
    currency: str
    """Currency of costs."""

    def cards(self, *, owner: str = "", state: str = "", text: str = "") -> Sequence[RunCard]:
        """Return runs, the newest first; empty texts stand for all."""

    def card(self, run_id: str) -> RunCard:
        """Return a run.

        Raises:
            NoRunError: if there is none.
        """

    def storage(self, run_id: str) -> str | None:
        """Return the address of the study's database; None: study.db in the run directory."""

    def log(self, run_id: str) -> str:
        """Return the log of a run so far."""

    def verbs(self, run_id: str) -> Sequence[str]:
        """Return the verbs that the user may do now: "stop", "resume", "budget", "delete"."""

    def act(self, run_id: str, verb: str, trials: int = 0) -> None:
        """Do a verb.

        Raises:
            RefusedError: if it is not allowed or does not fit.
        """


@dataclass
class SingleRun:
    """A catalog of one run directory, which is only read.

    Args:
        folder: run directory.
        address: address of the study's database; None: study.db in the folder.
        price: price of an hour of the run; None: no costs.
        currency: its currency.
    """

    folder: Path
    address: str | None = None
    price: float | None = None
    currency: str = "USD"
    is_single: bool = field(default=True, init=False)
    user: str = field(default="", init=False)

    def cards(self, *, owner: str = "", state: str = "", text: str = "") -> Sequence[RunCard]:
        """Return the run."""
        return [self.card(SINGLE_ID)]

    def card(self, run_id: str) -> RunCard:
        """Return the run, from its progress and its results."""
        if run_id != SINGLE_ID:
            raise NoRunError(f"there is no run {run_id[:40]!r}.")
        return run_card(self.folder, self.price)

    def storage(self, run_id: str) -> str | None:
        """Return the address that was given."""
        return self.address

    def log(self, run_id: str) -> str:
        """Return the last lines that the run said."""
        progress = RunProgress.read(self.folder)
        return "" if progress is None else "\n".join(progress.said)

    def verbs(self, run_id: str) -> Sequence[str]:
        """Return no verb: another process leads the run."""
        return ()

    def act(self, run_id: str, verb: str, trials: int = 0) -> None:
        """Refuse."""
        raise RefusedError("these pages only show a run. Use the process that runs it, or a service (autokd serve).")


def run_card(folder: Path, price: float | None = None) -> RunCard:
    """Return a run directory as a card.

    Args:
        folder: run directory.
        price: price of an hour; None: no cost.
    """
    import time

    progress = RunProgress.read(folder)
    results = _results(folder)
    told = {} if progress is None else progress.summary()
    state = _state(progress, results, time.time())
    seconds = results.search.seconds if results is not None else 0.0
    if results is None and progress is not None:
        seconds = progress.updated_s - progress.began_s
    ap = {} if results is None else {entry.name: _mean(entry.test_ap) for entry in results.entries}
    trials = next((each.total for each in progress.stages if each.name == "trials"), 0) if progress is not None else 0
    return RunCard(
        id=SINGLE_ID,
        name=(results.name if results is not None else "") or folder.name,
        state=state,
        trials=trials or (0 if results is None else results.search.finished + results.search.failed),
        trials_done=told.get("trials_done"),
        stage=told.get("stage"),
        stage_done=told.get("done"),
        stage_total=told.get("total"),
        left_s=told.get("left_s") if state == "running" else None,
        best=told.get("best"),
        best_formula=told.get("best_formula") or "",
        winner=None if results is None else results.winner,
        winner_ap=None if results is None else ap.get(results.winner),
        none_ap=ap.get("none"),
        created_s=0.0 if progress is None else progress.began_s,
        started_s=None if progress is None else progress.began_s,
        running_s=seconds,
        cost=None if price is None else seconds / 3600.0 * price,
        run_dir=str(folder),
    )


def _state(progress: RunProgress | None, results: Results | None, now: float) -> str:
    if progress is not None and not progress.is_over and now - progress.updated_s < STALE_S:
        return "running"
    if results is not None:
        return "finished"
    return "queued" if progress is None else "stopped"


def _results(folder: Path) -> Results | None:
    try:
        return Results.read(folder / "results.json")
    except AutoKDError:
        return None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
