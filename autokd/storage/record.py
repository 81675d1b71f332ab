"""Attributes that AutoKD stores on an Optuna trial, two of them, each one commit, and a note for the dashboard.

``autokd:job`` is written when a trial is asked, ``autokd:outcome`` before it is told: a driver that dies between the
two loses nothing. The names of all trial attributes are defined here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autokd.jobs import NO_DISTILLATION, Job, Outcome, RecipeName, Report
from autokd.spec import DistillerSpec, formula, formula_lines
from autokd.storage.json_codec import from_json, to_json
from autokd.storage.optuna_private import set_dashboard_note

JOB = "autokd:job"
OUTCOME = "autokd:outcome"

_NOTE_CHUNK = 2045
"""Characters of a note that optuna-dashboard keeps in one attribute."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as AutoKD stored it."""

    number: int
    """Number of the trial in its study."""
    state: TrialState
    """Optuna's state; RUNNING until the trial is told."""
    value: float | None
    """Reward; None until the trial is told, and if it has none."""
    owner: str
    """Mark of the run that asked for it."""
    job_id: str
    """Id of its job."""
    recipe: RecipeName
    """Recipe of its training."""
    seed: int
    """Training seed."""
    digest: str
    """``Job.digest``; NO_DISTILLATION for a job without a distiller; empty: AutoKD did not ask for the trial."""
    spec_yaml: str
    """YAML text of the distiller; empty: no distillation."""
    formula: str
    """Distiller as one line."""
    reused_from: int | None
    """Number of the trial with the same digest whose outcome this one took over; None: it was trained."""
    outcome: Outcome | None
    """Outcome of the job; None while it runs."""
    promoted: str = ""
    """Digest of the earlier trial's student that taught too; empty: none did."""

    @cached_property
    def spec(self) -> DistillerSpec | None:
        """The distiller; None: no distillation."""
        return DistillerSpec.from_yaml(self.spec_yaml) if self.spec_yaml else None


def record_job(
    trial: optuna.Trial, job: Job, *, owner: str = "", reused_from: int | None = None, note: bool = True
) -> None:
    """Store what a trial evaluates, and its formula as a note for optuna-dashboard.

    Args:
        trial: trial that has just been asked for.
        job: its job.
        owner: mark of the run that asked (``RunDirectory.owner``), by which a resumed run finds its own trials.
        reused_from: number of the trial whose outcome this one takes over; None: it is trained.
        note: write the note.
    """
    spec = job.spec
    data = {
        "owner": owner,
        "job_id": job.id,
        "recipe": job.recipe,
        "seed": job.seed,
        "digest": job.digest or NO_DISTILLATION,
        "spec": spec.to_yaml() if spec else "",
        "formula": formula(spec) if spec else "no distillation",
        "reused_from": reused_from,
    }
    if job.promoted:
        data["promoted"] = job.promoted
    if note:
        _write_note(trial, formula_lines(spec) if spec else ["no distillation"])
    trial.set_user_attr(JOB, data)


def record_outcome(trial: optuna.Trial, outcome: Outcome) -> None:
    """Store how a trial ended, before it is told.

    Args:
        trial: trial whose job has ended.
        outcome: outcome of its job.
    """
    trial.set_user_attr(OUTCOME, outcome_to_json(outcome))


def read_record(trial: FrozenTrial) -> TrialRecord:
    """Return what AutoKD stored on a trial.

    Args:
        trial: trial of any study; one that AutoKD did not ask for has an empty digest.
    """
    job: dict[str, Any] = trial.user_attrs.get(JOB, {})
    stored = trial.user_attrs.get(OUTCOME)
    return TrialRecord(
        number=trial.number,
        state=trial.state,
        value=trial.values[0] if trial.values else None,
        owner=job.get("owner", ""),
        job_id=job.get("job_id", ""),
        recipe=job.get("recipe", "proxy"),
        seed=job.get("seed", 0),
        digest=job.get("digest", ""),
        spec_yaml=job.get("spec", ""),
        formula=job.get("formula", ""),
        reused_from=job.get("reused_from"),
        outcome=None if stored is None else outcome_from_json(stored),
        promoted=job.get("promoted", ""),
    )


def promoted_of(trial: optuna.Trial) -> str | None:
    """Return the student that taught in a trial before it was interrupted.

    Args:
        trial: trial that has just been asked for.

    Returns:
        Digest of the student; empty: none taught; None: the trial is new.
    """
    job = trial.user_attrs.get(JOB)
    return None if job is None else str(job.get("promoted", ""))


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as strict JSON.

    Args:
        outcome: outcome of a job.
    """
    data: dict[str, Any] = to_json(
        {
            "job_id": outcome.job_id,
            "status": outcome.status,
            "cause": outcome.cause,
            "message": outcome.message,
            "metrics": outcome.metrics,
            "curve": [[report.epoch, report.seconds, report.metrics] for report in outcome.reports],
            "seconds": outcome.seconds,
            "artifacts": outcome.artifacts,
            "worker": outcome.worker,
        }
    )
    if outcome.artifacts and outcome.run_dir:
        data["run_dir"] = outcome.run_dir
    if outcome.inactive_terms:
        data |= {"inactive_terms": list(outcome.inactive_terms), "is_inactive": outcome.is_inactive}
    return data


def outcome_from_json(data: dict[str, Any]) -> Outcome:
    """Return the outcome of ``outcome_to_json``.

    Args:
        data: the encoded outcome.
    """
    plain = from_json(data)
    return Outcome(
        plain["job_id"],
        plain["status"],
        metrics=plain["metrics"],
        cause=plain["cause"],
        message=plain["message"],
        reports=tuple(Report(plain["job_id"], epoch, metrics, seconds) for epoch, seconds, metrics in plain["curve"]),
        seconds=plain["seconds"],
        artifacts=plain["artifacts"],
        run_dir=plain.get("run_dir", ""),
        worker=plain["worker"],
        inactive_terms=tuple(plain.get("inactive_terms", ())),
        is_inactive=plain.get("is_inactive", False),
    )


def _write_note(trial: optuna.Trial, lines: Iterable[str]) -> None:
    """Write a new note of a trial for optuna-dashboard, in a block of code so that Markdown leaves formulas alone."""
    body = "\n".join(["```", *lines, "```"])
    chunks = [body[start : start + _NOTE_CHUNK] for start in range(0, len(body), _NOTE_CHUNK)]
    # The version last: the dashboard reads a note as soon as it has one.
    set_dashboard_note(trial, {f"note_str:{i}": chunk for i, chunk in enumerate(chunks)} | {"note_ver": 1})
