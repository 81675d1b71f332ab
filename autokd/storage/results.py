"""``results.json``, schema 1: the findings of a run, for scripts of users and for the report."""

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
"""A number; None if it is not finite (JSON has no NaN) or not known."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class SearchSummary(_Part):
    """Counts of a search."""

    sampler: str
    """Name of the sampler, as ``search.sampler`` gives it."""
    finished: int = 0
    """Number of trials that ended with a value."""
    failed: int = 0
    """Number of trials that failed; those that were interrupted are not counted."""
    pruned: int = 0
    """Number of trials that the pruner stopped."""
    reused: int = 0
    """Number of ended trials that took the outcome of an earlier trial with an equal spec."""
    seconds: float = 0.0
    """Wall time of the run in seconds, over all times that it was resumed."""
    causes: dict[str, int] = Field(default_factory=dict)
    """Number of failed trials by cause."""
    full_trainings: Number = None
    """Cost of a search with a budget in full trainings, by epochs; None, and left out of the file, for others."""
    training_seconds: Number = None
    """Seconds that its trainings took, workers added; likewise."""
    gain_per_training: Number = None
    """Gain of the winner in mean val AP over none, divided by ``full_trainings``; likewise."""


class TeacherResult(_Part):
    """COCO AP of a teacher, in [0, 1]."""

    val_ap: Number = None
    """AP on val."""
    test_ap: Number = None
    """AP on test; on val again if there is no test split."""
    metrics: dict[str, Number] = Field(default_factory=dict)
    """Further metrics by name, such as "test_ap/cat"."""


class Entry(_Part):
    """One way of training the student in full, with one number for each seed, in the order of ``seeds``."""

    name: str
    """"none", a preset's name, "searched", or the name of a given distiller."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """Distiller as in its YAML file; empty: no distillation."""
    digest: str = ""
    """Digest of what the student learned from (``Job.digest``); empty: no distillation."""
    seeds: tuple[int, ...] = ()
    """Training seeds."""
    val_ap: tuple[Number, ...] = ()
    """COCO AP on val in [0, 1]; None for a training that failed."""
    test_ap: tuple[Number, ...] = ()
    """COCO AP on test in [0, 1]; None for a training that failed."""
    train_seconds: tuple[Number, ...] = ()
    """Duration of the training in seconds, evaluation not included."""
    formula: str = ""
    """Distiller as one line."""
    metrics: dict[str, tuple[Number, ...]] = Field(default_factory=dict)
    """Further metrics by name (``test_ap_50``, ``test_ap_small``, ...), one number for each seed."""
    val_ap_per_class: dict[str, tuple[Number, ...]] = Field(default_factory=dict)
    """AP on val by class name, one number for each seed."""
    test_ap_per_class: dict[str, tuple[Number, ...]] = Field(default_factory=dict)
    """AP on test by class name, one number for each seed."""
    proxy_reward: Number = None
    """Reward of the distiller's trial; 0 for "none"; None if no trial evaluated it."""
    inactive_terms: tuple[str, ...] = ()
    """Terms of which no gradient could be measured in the whole of some training; left out of the file if empty."""
    is_inactive: bool = False
    """Whether a training had no other terms, and so was one of "none"; left out of the file likewise."""

    @model_validator(mode="after")
    def _one_number_a_seed(self) -> Entry:
        columns = {"val_ap": self.val_ap, "test_ap": self.test_ap, "train_seconds": self.train_seconds}
        columns |= self.metrics | self.val_ap_per_class | self.test_ap_per_class
        for name, column in columns.items():
            if column and len(column) != len(self.seeds):
                raise ValueError(f"{name} of {self.name!r} has {len(column)} numbers for {len(self.seeds)} seeds")
        return self


class FinalistResult(_Part):
    """One of the best trials of a search, with its proxy rewards, one for each seed."""

    digest: str
    """Digest of what the student learns from (``Job.digest``)."""
    formula: str = ""
    """Distiller as one line."""
    seeds: tuple[int, ...] = ()
    """Training seeds of the rewards, the search's own first."""
    rewards: tuple[float, ...] = ()
    """Rewards in the order of ``seeds``. The first is biased upwards: the trial became a finalist by it."""
    mean: Number = None
    """Mean of ``rewards``."""
    expected: Number = None
    """Expected reward with a new seed, by empirical Bayes; None if no seed was repeated."""
    expected_deviation: Number = None
    """Posterior standard deviation of ``expected``."""
    fell_in: int | None = None
    """Number of the round, from 1, that eliminated it; None: it was never eliminated."""
    reason: str = ""
    """Why it was eliminated."""
    full_val_ap: Number = None
    """AP on val of one full training with ``Race.full_seed``; None if there was none, or it failed."""


class RaceRound(_Part):
    """One round of the race: a proxy training with one more seed for every finalist that is left, and for "none"."""

    seed: int
    """Training seed of the round."""
    leader: str = ""
    """Digest of the finalist with the best mean; empty: "none" failed, so the round eliminated nobody."""
    entered: tuple[str, ...] = ()
    """Digests of the finalists that took part."""
    fell: tuple[str, ...] = ()
    """Digests of the finalists that the round eliminated."""
    noise: Number = None
    """Residual standard deviation of a reward, seeds and distillers accounted for, as estimated after the round."""
    freedom: int = 0
    """Degrees of freedom of ``noise``."""


class Race(_Part):
    """Race of the finalists, which selected the winner of the search."""

    finalists: tuple[FinalistResult, ...] = ()
    """The winner first, then the others, the last eliminated first."""
    rounds: tuple[RaceRound, ...] = ()
    """Rounds in order."""
    verdict: str = ""
    """Why the race ended."""
    trainings: int = 0
    """Number of proxy trainings of finalists; those of "none", one a round, are not counted."""
    full_seed: int | None = None
    """Seed of the finalists' full trainings, which is none of the reported ones; None: the race alone decided."""
    prior_mean: Number = None
    """Mean reward of all trials, to which the expected rewards are shrunk."""
    between: Number = None
    """Standard deviation between distillers over all trials, with the noise subtracted."""
    in_full: bool = False
    """Whether it was one of full trainings, whose rewards are gains in val AP; left out of the file if it was not."""


class ProxyFidelity(_Part):
    """Rank correlation of proxy and full trainings, over the distillers that have both."""

    kendall_tau: Number = None
    """Kendall's tau-b between proxy reward and mean val AP; None if there are too few distillers, or all are tied."""
    pairs: int = 0
    """Number of distinct distillers that have both."""
    low: Number = None
    """Lower end of the conservative 95% interval of ``kendall_tau``."""
    high: Number = None
    """Upper end of that interval."""
    note: str = ""
    """Limits of the value, or the reason why there is none."""


class Results(_Part):
    """Content of results.json."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    """Number of the format."""
    name: str = ""
    """Name of the run's configuration."""
    search: SearchSummary
    """Counts of the search; all 0 if nothing was searched."""
    teacher: TeacherResult = TeacherResult()
    """The teacher; of several the one with the best val AP."""
    teachers: tuple[TeacherResult, ...] = ()
    """Each of several teachers, in the order of the configuration; empty, and left out of the file, for one."""
    entries: tuple[Entry, ...] = ()
    """Full trainings: "none" first, then the baselines, then the searched or given distiller."""
    race: Race | None = None
    """Race of the finalists; None, and left out of the file, if nothing was searched."""
    proxy_fidelity: ProxyFidelity = ProxyFidelity()
    """Rank correlation of proxy and full trainings."""
    winner: str = ""
    """Name of the entry with the best mean val AP."""
    notes: tuple[str, ...] = ()
    """Remarks for the reader: no test file, trainings that failed, ..."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions of Python and of the packages."""

    def entry(self, name: str) -> Entry:
        """Return the entry of a name.

        Args:
            name: name of the entry, such as "searched".

        Raises:
            KeyError: if there is none; the message lists the names.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise KeyError(f"no entry {name!r}; there are {', '.join(entry.name for entry in self.entries)}.")

    @property
    def race_is_in_full(self) -> bool:
        """Whether the race was one of full trainings."""
        return self.race is not None and self.race.in_full

    def to_json(self) -> str:
        """Return the text of results.json."""
        empty = {name for name in ("teachers", "race") if not getattr(self, name)}
        data = self.model_dump(mode="json", by_alias=True, exclude=empty)
        for name in ("full_trainings", "training_seconds", "gain_per_training"):
            if data["search"][name] is None:
                del data["search"][name]
        if data.get("race") is not None and not self.race_is_in_full:
            del data["race"]["in_full"]
        for entry in data["entries"]:
            if not entry["inactive_terms"]:
                del entry["inactive_terms"], entry["is_inactive"]
        return json.dumps(data, indent=2, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write results.json; a reader sees the old file or the new one, never a part.

        Args:
            path: file to write.
        """
        write_text_atomically(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Results:
        """Return the results that a file holds.

        Args:
            path: a results.json.

        Raises:
            StorageError: if the file is absent, broken or of another schema.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StorageError(
                f"{path}: there are no results yet, because the run has not ended. Continue it with --resume."
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
