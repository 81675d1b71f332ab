"""The table as a file: gzip'd JSON lines, a header and then one line a spec.

The format needs only the standard library to write and to read, ``zcat`` shows it, nothing in it is executed, and rows
with different numbers of seeds and epochs need no padding, as arrays would. A table of 500 specs takes about 200 kB.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autokd.benchmark.identity import Header, check_identity, text_digest
from autokd.benchmark.table import BenchmarkRow, DistillerBenchmark
from autokd.config import ResolvedConfig
from autokd.errors import BenchmarkError, SpecError
from autokd.jobs import NO_DISTILLATION, TRAINING_VERSION, JobId, Outcome, RecipeName
from autokd.space import AnySpace
from autokd.spec import DistillerSpec
from autokd.storage.json_codec import to_json
from autokd.storage.record import outcome_from_json, outcome_to_json

RECIPES: tuple[RecipeName, ...] = ("full", "proxy")
_DIGITS = 6
_LEFT_OUT_IF_EMPTY: dict[str, Any] = {"cause": None, "message": "", "artifacts": {}, "worker": ""}
"""Fields of an outcome that are not written if they are empty. The job's id is never written: the row gives it."""


def load_benchmark(
    path: str | Path,
    *,
    space: AnySpace | None = None,
    config: ResolvedConfig | None = None,
    commit: str | None = None,
    training_version: int | None = TRAINING_VERSION,
) -> DistillerBenchmark:
    """Read a table, and check that it was made for what it will be used for.

    Args:
        path: the file.
        space: space that the table must be of; None compares none.
        config: configuration whose data, pair and recipes the table must have been trained with; None compares none.
        commit: commit of AutoKD that must have made all of the table; None compares none. Most commits change no
            training, so a difference alone says little; ``header.commits`` has them for a report.
        training_version: version of the training that the table must be of; None accepts any.

    Raises:
        BenchmarkError: if the file is no table, of another schema, or differs in any of the above; the message names
            the difference.
    """
    where = str(path)
    lines = _lines(Path(path))
    header = Header.from_data(_parsed(lines[0], where, 1), where)
    if text_digest(header.space) != header.space_digest:
        raise BenchmarkError(f"{where}: the space's text does not fit its digest: the header was edited or damaged.")
    check_identity(
        header, where, space=space, config=config, commit=commit, training_version=training_version
    )  # fmt: skip
    rows = [_row(_parsed(line, where, number), where, number) for number, line in enumerate(lines[1:], 2)]
    digests = {row.digest for row in rows}
    if len(digests) < len(rows):
        raise BenchmarkError(
            f"{where}: a spec has two rows. The file is damaged: copy it again, or record the table again."
        )
    return DistillerBenchmark(header, rows, where)


def save_benchmark(path: str | Path, benchmark: DistillerBenchmark) -> None:
    """Write a table; numbers keep six digits.

    Args:
        path: the file.
        benchmark: the table; equal tables give equal bytes.
    """
    rows = [benchmark.none] if None in benchmark else []
    rows += sorted(benchmark, key=lambda row: row.digest)
    lines = [to_json(benchmark.header.to_data()), *map(_row_data, rows)]
    text = "".join(json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n" for line in lines)
    # No time in gzip's header: the bytes depend on the table alone.
    Path(path).write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _lines(path: Path) -> list[str]:
    try:
        text = gzip.decompress(path.read_bytes()).decode()
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: there is no such file. 'autokd benchmark collect' makes a table.") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path}: not a benchmark table, or cut short ({error}).") from None
    lines = text.splitlines()
    if not lines:
        raise BenchmarkError(f"{path}: the file is empty. A table begins with a header.")
    return lines


def _parsed(line: str, where: str, number: int) -> dict[str, Any]:
    try:
        data = json.loads(line)
    except ValueError as error:
        raise BenchmarkError(
            f"{where}:{number}: this is no JSON ({error}). It is not a benchmark table, or cut short."
        ) from None
    if not isinstance(data, dict):
        raise BenchmarkError(f"{where}:{number}: found {line[:40]!r}; a line holds a mapping.")
    return data


def _row_data(row: BenchmarkRow) -> dict[str, Any]:
    return {
        "digest": row.digest,
        "spec": None if row.spec is None else row.spec.canonical().to_data(),
        "full": {str(seed): _outcome_data(outcome) for seed, outcome in sorted(row.full.items())},
        "proxy": {str(seed): _outcome_data(outcome) for seed, outcome in sorted(row.proxy.items())},
    }


def _outcome_data(outcome: Outcome) -> dict[str, Any]:
    data = _rounded(outcome_to_json(outcome))
    return {key: value for key, value in data.items() if key != "job_id" and (value or key not in _LEFT_OUT_IF_EMPTY)}


def _row(data: Mapping[str, Any], where: str, number: int) -> BenchmarkRow:
    try:
        digest = data["digest"]
        spec = None if digest == NO_DISTILLATION else DistillerSpec.from_data(data["spec"]).canonical()
        full, proxy = (
            {int(seed): _outcome(found, JobId(recipe, digest, int(seed))) for seed, found in data[recipe].items()}
            for recipe in RECIPES
        )
    except SpecError as error:
        raise BenchmarkError(
            f"{where}:{number}: its spec cannot be read by this AutoKD ({error}). Record the table again."
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BenchmarkError(f"{where}:{number}: not a row of a benchmark table ({error!r}).") from None
    if spec is not None and spec.digest != digest:
        raise BenchmarkError(
            f"{where}:{number}: the spec's digest is {spec.digest} here, {digest} in the table: its operators have "
            "other defaults now, or the file is damaged. Record the table again."
        )
    return BenchmarkRow(spec, full, proxy)


def _outcome(data: Mapping[str, Any], job_id: JobId) -> Outcome:
    return outcome_from_json(_LEFT_OUT_IF_EMPTY | dict(data) | {"job_id": str(job_id)})


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{_DIGITS}g}")
    return value
