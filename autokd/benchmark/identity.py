"""The origin of a table, and its difference from the space, recipe, commit and version that it is used for."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from autokd.config import ResolvedConfig, config_data
from autokd.documents import dump_yaml, load_document
from autokd.errors import BenchmarkError
from autokd.files import content_digest, text_digest
from autokd.jobs import TRAINING_VERSION, RecipeName
from autokd.space import AnySpace, PartSpace, count_distillers, read_space

SCHEMA = 2
"""Schema of the file; raised when its meaning changes."""

# Settings that change no training: where the data lie, how long a training may take, and how a search judges trials.
_WITHOUT_EFFECT = (
    "root", "weights_dir", "timeout_s", "timeout_factor", "seeds", "baselines", "baseline_gradient_ratio", "reward",
    "calibration_trials",
)  # fmt: skip

_FILES = ("config", "checkpoint", "weights")
"""Settings of a detector that may name a file."""


@dataclass(frozen=True)
class Header:
    """The first line of a table."""

    schema: int
    training_version: int
    """Version of the training (``TRAINING_VERSION``) that made the numbers."""
    commits: tuple[str, ...]
    """Commits of AutoKD that made the numbers."""
    space: str
    """The space as YAML."""
    space_digest: str
    config: Mapping[str, Any]
    """The other sections of the configuration: data, pair and recipes."""
    recipe_digest: str
    machines: tuple[str, ...]
    """Machines that made the numbers."""
    created: str
    """Time of writing, UTC, ISO 8601."""
    num_specs: int
    """Specs of the space; a partial table has fewer rows."""

    def to_data(self) -> dict[str, Any]:
        """Return the header as plain data."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Mapping[str, Any], where: str) -> Header:
        """Read a header.

        Args:
            data: the parsed first line of the file.
            where: name of the file, for errors.

        Raises:
            BenchmarkError: if it is of another schema, or lacks a field.
        """
        found = data.get("schema")
        if found != SCHEMA:
            raise BenchmarkError(
                f"{where}: schema {found!r}; this version of AutoKD reads schema {SCHEMA}. Record the table again, or "
                "use the AutoKD that made it."
            )
        missing = [field.name for field in fields(cls) if field.name not in data]
        if missing:
            raise BenchmarkError(
                f"{where}: its header lacks {', '.join(missing)}. The file is damaged: copy it again, or record the "
                "table again."
            )
        known: dict[str, Any] = {field.name: data[field.name] for field in fields(cls)}
        return cls(**known | {name: tuple(known[name]) for name in ("commits", "machines")})

    def read_space(self) -> AnySpace:
        """Return the space of the table."""
        return read_space(load_document(self.space))


def make_header(config: ResolvedConfig, *, commits: Sequence[str], machines: Sequence[str]) -> Header:
    """Return the header of a table.

    Args:
        config: configuration of the trainings, whose pair supplies all of the space.
        commits: commits of AutoKD that made the numbers.
        machines: machines that made them.
    """
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
        num_specs=count_distillers(config.space),
    )


def recipe_digest(config: ResolvedConfig, recipe: RecipeName | None = None) -> str:
    """Return a digest of everything that the numbers of a training depend on, apart from its distiller.

    That is data, pair and recipes, but neither the space nor the folder of the data.

    Args:
        config: configuration of the trainings.
        recipe: recipe of the trainings; the other one then does not count. None: both count.

    Returns:
        16 hexadecimal digits.
    """
    trained_by = _trained_by(config_data(config))
    if recipe is not None:
        trained_by.pop("full" if recipe == "proxy" else "proxy")
    return text_digest(json.dumps(trained_by, sort_keys=True))


def current_commit() -> str:
    """Return the commit of this checkout of AutoKD.

    Returns:
        12 digits, with "-dirty" behind them if files differ from the commit; empty outside a checkout.
    """
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
    space: AnySpace | None,
    config: ResolvedConfig | None,
    commit: str | None,
    training_version: int | None,
) -> None:
    """Check what a table was made for; None is not compared.

    Args:
        header: header of the table.
        where: name of the file, for errors.
        space: space that the table must be of.
        config: configuration whose data, pair and recipes it must have been trained with.
        commit: commit that must have made all of it.
        training_version: version of the training that it must be of.

    Raises:
        BenchmarkError: if something differs; the message names the first difference.
    """
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


def space_difference(table: AnySpace, asked: AnySpace) -> str:
    """Return the first difference of two spaces as text; empty if they are equal."""
    if isinstance(table, PartSpace) or isinstance(asked, PartSpace):
        if isinstance(table, PartSpace) and isinstance(asked, PartSpace):
            return "" if table == asked else "its parts or their strengths are others"
        return "one is of sums of parts, the other of terms of operators"
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
    if table.gradient_ratio != asked.gradient_ratio:
        return f"gradient_ratio: {table.gradient_ratio} in the table, {asked.gradient_ratio} here"
    return "" if table == asked else "they are written differently"


def recipe_difference(recorded: Mapping[str, Any], config: ResolvedConfig) -> str:
    """Return the first setting that differs from the recorded configuration as text; empty if none does.

    A setting that the table does not have, since it is younger than the table, counts as its default.
    """
    data = config_data(config)
    here = _trained_by(data)
    for name in here:
        ours, theirs = _flat(recorded.get(name), name), _flat(here[name], name)
        for key in sorted(ours.keys() | theirs.keys()):
            is_younger = key not in ours and _is_default(config, key)
            if ours.get(key) != theirs.get(key) and not is_younger:
                return f"{key}: {ours.get(key)!r} in the table, {theirs.get(key)!r} here"
    return ""


def _is_default(config: ResolvedConfig, key: str) -> bool:
    """Return whether the setting of a dotted key ("full.epochs") has the value of a file that leaves it out."""
    *path, name = key.split(".")
    section: Any = config
    for part in path:
        section = getattr(section, part, None)
    if not isinstance(section, BaseModel) or name not in type(section).model_fields:
        return False
    default = type(section).model_fields[name].get_default(call_default_factory=True)
    return bool(getattr(section, name) == default)


def _flat(data: Any, prefix: str) -> dict[str, Any]:
    if isinstance(data, Mapping):
        return {key: value for name, item in data.items() for key, value in _flat(item, f"{prefix}.{name}").items()}
    return {prefix: data}


def _trained_by(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a configuration that a training's numbers depend on."""
    # teacher_weights is there only if there are several teachers.
    names = ("data", "teacher", "teacher_weights", "student", "proxy", "full")
    return {name: _decisive(data[name]) for name in names if name in data}


def _decisive(section: Any) -> Any:
    """Return a section without the settings that change no training's numbers, and without places of this machine."""
    if isinstance(section, list):
        return [_decisive(each) for each in section]
    if not isinstance(section, Mapping):
        return section
    kept = {key: value for key, value in section.items() if key not in _WITHOUT_EFFECT}
    return kept | {key: _portable(kept[key]) for key in _FILES if key in kept}


def _portable(path: Any) -> Any:
    """Return a file by its name and the digest of its content: a copy elsewhere is the same, another file is not."""
    if not isinstance(path, str) or not Path(path).is_absolute():
        return path
    file = Path(path)
    return f"{file.name} ({content_digest(file)})" if file.is_file() else file.name


def _is_same_commit(found: str, asked: str) -> bool:
    return bool(asked) and bool(found) and (found.startswith(asked) or asked.startswith(found))


__all__ = ["SCHEMA", "Header", "check_identity", "current_commit", "make_header", "recipe_digest"]
