"""What the REST interface takes and gives."""

from __future__ import annotations

import time
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from autokd.service.database import AuditEntry, Search

Override = int | float | bool | str | None | list[Any] | dict[str, Any]


class Submission(BaseModel):
    """A search to submit."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    config: Annotated[str, Field(max_length=2**19)]
    """YAML text of the config file. Its paths are absolute, as the cluster sees them."""
    overrides: Annotated[dict[str, Override], Field(max_length=200)] = {}
    """Dotted keys and the values that replace the file's, such as {"search.trials": 60}."""


class Budget(BaseModel):
    """A new budget."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    trials: Annotated[int, Field(ge=1, le=1_000_000)]
    """Number of trials to evaluate in all."""


class SearchInfo(BaseModel):
    """A search as clients see it. Times are in seconds since 1970."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """Id of the search."""
    name: str
    """Name of its configuration."""
    owner: str
    """Name of the token that submitted it."""
    state: str
    """queued, running, stopping, stopped, finished or failed."""
    message: str = ""
    """Why it is in that state, if there is more to say."""
    trials: int
    """Number of trials to evaluate."""
    trials_done: int | None = None
    """Number of trials evaluated."""
    stage: str | None = None
    """Stage that the run is in."""
    stage_done: int | None = None
    """Steps of the stage that are done."""
    stage_total: int | None = None
    """Steps of the stage."""
    left_s: float | None = None
    """Seconds until the end of the stage, at its present rate."""
    best: float | None = None
    """Best reward so far; that of no distillation is 0 by definition."""
    best_formula: str = ""
    """Distiller of the best trial."""
    winner: str | None = None
    """Name of the winning entry of the results."""
    winner_ap: float | None = None
    """Mean test AP of the winner."""
    none_ap: float | None = None
    """Mean test AP without distillation."""
    created_s: float
    """Time of the submission."""
    started_s: float | None = None
    """Start of the present job."""
    ended_s: float | None = None
    """End of the last job."""
    running_s: float
    """Seconds that its jobs have run."""
    cost: float | None = None
    """Price of that time, if the operator has set one."""
    run_dir: str
    """Run directory on the cluster."""


def search_info(search: Search, run_dir: str, price: float | None = None, now: float | None = None) -> SearchInfo:
    """Return a search as clients see it.

    Args:
        search: row of the database.
        run_dir: its run directory.
        price: price of an hour; None: no cost.
        now: present time; None: the clock's.
    """
    now = time.time() if now is None else now
    is_running = search.started_s is not None and search.ended_s is None
    running_s = search.running_s + (now - search.started_s if is_running and search.started_s is not None else 0.0)
    found = search.summary or {}
    return SearchInfo(
        id=search.id,
        name=search.name,
        owner=search.owner,
        state=search.state,
        message=search.message,
        trials=search.trials,
        trials_done=found.get("trials_done"),
        stage=found.get("stage"),
        stage_done=found.get("done"),
        stage_total=found.get("total"),
        left_s=found.get("left_s") if search.state == "running" else None,
        best=found.get("best"),
        best_formula=found.get("best_formula") or "",
        winner=found.get("winner"),
        winner_ap=found.get("winner_ap"),
        none_ap=found.get("none_ap"),
        created_s=search.created_s,
        started_s=search.started_s,
        ended_s=search.ended_s,
        running_s=running_s,
        cost=None if price is None else running_s / 3600.0 * price,
        run_dir=run_dir,
    )


class AuditLine(BaseModel):
    """A line of the audit log."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    at_s: float
    """Time, in seconds since 1970."""
    who: str
    """Name of the token."""
    action: str
    """What was done."""
    search: str
    """Id of the search; empty: of none."""
    detail: str
    """More about it."""
    address: str
    """Address of the client."""


def audit_line(entry: AuditEntry) -> AuditLine:
    """Return a line of the audit log as clients see it.

    Args:
        entry: row of the database.
    """
    return AuditLine(
        at_s=entry.at_s, who=entry.who, action=entry.action, search=entry.search, detail=entry.detail,
        address=entry.address,
    )  # fmt: skip
