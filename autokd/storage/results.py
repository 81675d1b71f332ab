"""``results.json``, schema 1: what a run found, for people's scripts and for the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from autokd.errors import StorageError
from autokd.files import write_text_atomically

SCHEMA = 1


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A number, or None where it is not finite or not known (JSON has no NaN)."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SearchSummary(_Part):
    """How the search went. ``finished`` counts trials that ended with a value, ``reused`` those of them that
    took it from an equal spec."""

    sampler: str
    finished: int = 0
    failed: int = 0
    pruned: int = 0
    reused: int = 0
    seconds: float = 0.0
    causes: dict[str, int] = Field(default_factory=dict)
    """Failed trials by cause."""


class TeacherResult(_Part):
    val_ap: Number = None
    test_ap: Number = None
    metrics: dict[str, Number] = Field(default_factory=dict)
    """Further numbers, as ``test_ap_50``."""


class Entry(_Part):
    """One way of training the student in full, with one number for each seed, in the order of ``seeds``."""

    name: str
    """none, a preset's name, or searched."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """As in the distiller's YAML; empty for none."""
    digest: str = ""
    seeds: tuple[int, ...] = ()
    val_ap: tuple[Number, ...] = ()
    test_ap: tuple[Number, ...] = ()
    train_seconds: tuple[Number, ...] = ()
    formula: str = ""
    metrics: dict[str, tuple[Number, ...]] = Field(default_factory=dict)
    """Further numbers by name (``test_ap_50``, ``test_ap_small``, ...), one for each seed."""
    val_ap_per_class: dict[str, tuple[Number, ...]] = Field(default_factory=dict)
    test_ap_per_class: dict[str, tuple[Number, ...]] = Field(default_factory=dict)
    """Class name -> one number for each seed."""
    proxy_reward: Number = None

    @model_validator(mode="after")
    def _one_number_a_seed(self) -> Entry:
        columns = {"val_ap": self.val_ap, "test_ap": self.test_ap, "train_seconds": self.train_seconds}
        columns |= self.metrics | self.val_ap_per_class | self.test_ap_per_class
        for name, column in columns.items():
            if column and len(column) != len(self.seeds):
                raise ValueError(f"{name} of {self.name!r} has {len(column)} numbers for {len(self.seeds)} seeds")
        return self


class FinalistResult(_Part):
    """One of the best few trials of a search, with its proxy rewards, one for each seed."""

    digest: str
    formula: str = ""
    seeds: tuple[int, ...] = ()
    """The search's own seed first."""
    rewards: tuple[float, ...] = ()
    """In the order of ``seeds``. The first made it a finalist, and is a lucky one."""
    mean: Number = None
    expected: Number = None
    """What a further seed is expected to give, by empirical Bayes; None where no seed was repeated."""
    expected_deviation: Number = None
    """Posterior standard deviation of ``expected``."""
    fell_in: int | None = None
    """Number of the round (from 1) after which it was out; None: it stood to the end."""
    reason: str = ""
    """Why it fell."""
    full_val_ap: Number = None
    """Val AP of one full training with ``Race.full_seed``; None where there was none, or it failed."""


class RaceRound(_Part):
    """One more seed for every finalist that stood, and "none" with it."""

    seed: int
    leader: str = ""
    """Digest of the one with the best mean; empty: the round had no say, since "none" failed."""
    entered: tuple[str, ...] = ()
    """Digests of those that stood before it."""
    fell: tuple[str, ...] = ()
    noise: Number = None
    """Standard deviation of a reward about its distiller and its seed, as known after the round."""
    freedom: int = 0
    """Degrees of freedom of ``noise``."""


class Race(_Part):
    """How the winner of a search was found among its best few."""

    finalists: tuple[FinalistResult, ...] = ()
    """The winner first, then by how long they stood."""
    rounds: tuple[RaceRound, ...] = ()
    verdict: str = ""
    """Why it ended."""
    trainings: int = 0
    """Proxy trainings of finalists; those of "none", one a round, come on top."""
    full_seed: int | None = None
    """Of the finalists' full trainings, none of those that are reported; None: the race alone decided."""
    prior_mean: Number = None
    """What the expected rewards are shrunken to: the mean of all trials."""
    between: Number = None
    """Standard deviation between distillers, over all trials, its noise taken off."""


class ProxyFidelity(_Part):
    """How well the proxy ranked the distillers that were also trained in full."""

    kendall_tau: Number = None
    """Kendall's tau-b between proxy reward and mean val AP; None where there are too few, or all are level."""
    pairs: int = 0
    """Distinct distillers that have both."""
    low: Number = None
    high: Number = None
    """Conservative 95% interval of ``kendall_tau``."""
    note: str = ""
    """How far it can be trusted, or why there is none."""


class Results(_Part):
    """A whole results.json."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    name: str = ""
    search: SearchSummary
    teacher: TeacherResult = TeacherResult()
    """Of several teachers the one with the best val AP."""
    teachers: tuple[TeacherResult, ...] = ()
    """Where there are several: each, in the order of the space file. Left out of the file for one."""
    entries: tuple[Entry, ...] = ()
    race: Race | None = None
    """Of the finalists; None, and left out of the file, where there was no search."""
    proxy_fidelity: ProxyFidelity = ProxyFidelity()
    winner: str = ""
    """Name of the best entry."""
    notes: tuple[str, ...] = ()
    """What a reader must know (no test file, seeds that failed, ...)."""
    versions: dict[str, str] = Field(default_factory=dict)

    def entry(self, name: str) -> Entry:
        """The entry of that name; KeyError lists those there are."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(f"no entry {name!r}; there are {', '.join(entry.name for entry in self.entries)}.")

    def to_json(self) -> str:
        empty = {name for name in ("teachers", "race") if not getattr(self, name)}
        data = self.model_dump(mode="json", by_alias=True, exclude=empty)
        return json.dumps(data, indent=2, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write atomically."""
        write_text_atomically(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Results:
        """StorageError if the file is absent, broken or of another schema."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StorageError(
                f"{path}: there are no results yet: the run has not come to its end. Go on with --resume."
            ) from None
        except (OSError, ValueError) as error:
            raise StorageError(f"{path}: not a results file: {error}.") from error
        found = data.get("schema") if isinstance(data, dict) else None
        if found != SCHEMA:
            raise StorageError(
                f"{path}: schema {found!r}; this version of AutoKD reads schema {SCHEMA}. "
                "Use the version that wrote it, or run the search again."
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise StorageError(f"{path}: {place}: {first['msg']}.") from error
