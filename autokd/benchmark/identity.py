"""What a table was made from, and how it differs from what someone wants to use it for."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from autokd.config import ResolvedConfig, config_data
from autokd.documents import dump_yaml, load_document
from autokd.errors import BenchmarkError
from autokd.outcomes import TRAINING_VERSION, RecipeName
from autokd.space import Space, count_specs, space_from_document

SCHEMA = 1
"""Of the file; raised when its meaning changes."""

_INDIFFERENT = (
    "root", "timeout_s", "seeds", "baselines", "baseline_strength", "reward", "calibration_trials"
)  # fmt: skip


@dataclass(frozen=True)
class Header:
    """The first line of a table.

    ``space`` is the YAML of the space, ``config`` the other sections of the file. ``commits`` of AutoKD made the
    numbers, on ``machines``.
    """

    schema: int
    training_version: int
    commits: tuple[str, ...]
    space: str
    space_digest: str
    config: Mapping[str, Any]
    recipe_digest: str
    machines: tuple[str, ...]
    created: str
    num_specs: int
    """Of the space; a partial table has fewer rows."""

    def to_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], where: str) -> Header:
        """Read a header; BenchmarkError unless it is one of this schema."""
        found = data.get("schema")
        if found != SCHEMA:
            raise BenchmarkError(
                f"{where}: schema {found!r}; this version of AutoKD reads schema {SCHEMA}. Record the table again, or "
                "use the AutoKD that made it."
            )
        missing = [field.name for field in fields(cls) if field.name not in data]
        if missing:
            raise BenchmarkError(f"{where}: its header lacks {', '.join(missing)}. The file is damaged: take it anew.")
        known: dict[str, Any] = {field.name: data[field.name] for field in fields(cls)}
        return cls(**known | {name: tuple(known[name]) for name in ("commits", "machines")})

    def read_space(self) -> Space:
        """The space of the table."""
        return space_from_document(load_document(self.space))


def make_header(config: ResolvedConfig, *, commits: Sequence[str], machines: Sequence[str]) -> Header:
    """The header of a table of ``config``, whose pair supplies all of its space."""
    data = config_data(config)
    text = dump_yaml(data["space"])
    return Header(
        schema=SCHEMA,
        training_version=TRAINING_VERSION,
        commits=tuple(sorted(set(commits))),
        space=text,
        space_digest=text_digest(text),
        config={"name": data["name"]} | _trained_by(data),
        recipe_digest=recipe_digest(config),
        machines=tuple(sorted(set(machines))),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        num_specs=count_specs(config.space),
    )


def recipe_digest(config: ResolvedConfig, recipe: RecipeName | None = None) -> str:
    """Identifies what one training's numbers depend on: data, pair and recipes, but not the space, nor where the data
    lie. With ``recipe``, what the trainings of that one recipe depend on."""
    trained_by = _trained_by(config_data(config))
    if recipe is not None:
        trained_by.pop("full" if recipe == "proxy" else "proxy")
    return text_digest(json.dumps(trained_by, sort_keys=True))


def text_digest(text: str) -> str:
    """16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def current_commit() -> str:
    """The commit of this checkout of AutoKD, "-dirty" behind it where files differ; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def check_identity(
    header: Header,
    where: str,
    *,
    space: Space | None,
    config: ResolvedConfig | None,
    commit: str | None,
    training_version: int | None,
) -> None:
    """BenchmarkError, naming the difference, unless the table was made for all of this; None is not compared."""
    if training_version is not None and header.training_version != training_version:
        raise BenchmarkError(
            f"{where}: its trainings are of version {header.training_version}, this AutoKD trains version "
            f"{training_version}: the same job would end with other numbers. Record the table again; or load it with "
            "training_version=None to look at the old numbers."
        )
    if commit is not None:
        others = [found for found in header.commits if not _is_same_commit(found, commit)]
        if others or not header.commits:
            raise BenchmarkError(
                f"{where}: recorded at commit {', '.join(header.commits) or '(unknown)'}, asked for is {commit}. Leave "
                "commit out to compare the version of the training alone."
            )
    if space is not None and (difference := space_difference(header.read_space(), space)):
        raise BenchmarkError(f"{where}: made for another space: {difference}. Record a table for this space.")
    if config is not None and (difference := recipe_difference(header.config, config)):
        raise BenchmarkError(f"{where}: made by another recipe: {difference}. Record a table for this recipe.")


def space_difference(table: Space, asked: Space) -> str:
    """The first thing in which two spaces differ; empty if they are equal."""
    if (table.min_terms, table.max_terms) != (asked.min_terms, asked.max_terms):
        return (
            f"terms: {table.min_terms} to {table.max_terms} in the table, {asked.min_terms} to {asked.max_terms} here"
        )
    names = [slot.name for slot in table.slots], [slot.name for slot in asked.slots]
    if names[0] != names[1]:
        return f"slots: {', '.join(names[0])} in the table, {', '.join(names[1])} here"
    for ours, theirs in zip(table.slots, asked.slots):
        if ours != theirs:
            labels = [", ".join(map(str, slot.options)) for slot in (ours, theirs)]
            return f"{ours.name}: {labels[0]} in the table, {labels[1]} here"
    if table.strength != asked.strength:
        return f"strength: {table.strength} in the table, {asked.strength} here"
    return "" if table == asked else "they are written differently"


def recipe_difference(recorded: Mapping[str, Any], config: ResolvedConfig) -> str:
    """The first setting in which a configuration differs from the recorded one; empty if none does."""
    data = config_data(config)
    here = _trained_by(data)
    for name in here:
        ours, theirs = _flat(recorded.get(name), name), _flat(here[name], name)
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                return f"{key}: {ours.get(key)!r} in the table, {theirs.get(key)!r} here"
    return ""


def _flat(data: Any, prefix: str) -> dict[str, Any]:
    if isinstance(data, Mapping):
        return {key: value for name, item in data.items() for key, value in _flat(item, f"{prefix}.{name}").items()}
    return {prefix: data}


def _trained_by(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a training's numbers depend on, of a configuration; several teachers have factors beside them."""
    names = ("data", "teacher", "teacher_factors", "student", "proxy", "full")
    return {name: _decisive(data[name]) for name in names if name in data}


def _decisive(section: Any) -> Any:
    """A section without what changes no training's numbers: where the data lie, limits, what is judged how."""
    if not isinstance(section, Mapping):
        return section
    return {key: value for key, value in section.items() if key not in _INDIFFERENT}


def _is_same_commit(found: str, asked: str) -> bool:
    return bool(asked) and bool(found) and (found.startswith(asked) or asked.startswith(found))


__all__ = ["SCHEMA", "Header", "check_identity", "current_commit", "make_header", "recipe_digest"]
