"""One fault after another: strike, resume, compare. Each result is a line of a record, which a later call continues."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.faults import Fault, mount_read_only
from tests.chaos.memory import Memory, comparable_results, read_memory
from tests.chaos.searches import Laboratory, Search, processes_of, processes_of_session

MOST_RESUMES = 4
_COMPLETE = ("COMPLETE", "FAIL", "PRUNED")
_LINGER_S = 20.0
"""Seconds that Ray's processes may live on after their driver was killed."""


@dataclass
class Undisturbed:
    """The search that nothing disturbs, to which all others are compared.

    Attributes:
        cpu_s: seconds of a core that it takes, by number of workers and whether the teacher is trained in it.
        results: its results.
        memory: its database.
    """

    cpu_s: dict[tuple[int, bool], float]
    results: dict[str, Any]
    memory: Memory


def undisturbed(laboratory: Laboratory, *, with_ray: bool, repeat: bool = True) -> Undisturbed:
    """Search without faults: with a new cache, with a filled one and, if asked for, on Ray.

    Args:
        laboratory: where.
        with_ray: search on Ray too, whose driver takes another time.
        repeat: search a second time, with the cache that the first has filled.
    """
    cpu_s: dict[tuple[int, bool], float] = {}
    found: list[Path] = []
    for key, arguments in {(0, True): (), (0, False): (), (1, False): ("--workers", "1")}.items():
        if (key[0] and not with_ray) or (key == (0, False) and not repeat):
            continue
        run = laboratory.folder / f"undisturbed-{key[0]}-{key[1]}"
        search = laboratory.start(run, *arguments)
        assert search.wait() == 0, search.text
        cpu_s[key] = search.cpu_s
        found.append(run)
    cpu_s.setdefault((0, False), cpu_s[0, True])
    results, memory = comparable_results(found[0]), read_memory(found[0])
    for run in found[1:]:
        assert comparable_results(run) == results, "an undisturbed search repeats itself"
        assert read_memory(run).comparable() == memory.comparable()
    return Undisturbed(cpu_s, results, memory)


def survive(laboratory: Laboratory, expected: Undisturbed, fault: Fault) -> dict[str, Any]:
    """Let one fault happen to one search, resume it until it ends well, and compare.

    Args:
        laboratory: where.
        expected: the undisturbed search.
        fault: the fault.

    Returns:
        The fault, whether it hit, what was found wrong (empty: nothing), seconds until the search had ended well.
    """
    began_s = time.monotonic()
    folder = laboratory.folder / f"fault-{fault.number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    wrong: list[str] = []
    row = fault.words() | {"hit": False, "resumes": 0}
    try:
        _disturb_and_resume(laboratory, expected, fault, folder, row, wrong)
    except TimeoutError as error:
        wrong.append(f"hangs: {error}")
    row |= {"wrong": wrong, "seconds": round(time.monotonic() - began_s, 1)}
    if not wrong:
        shutil.rmtree(folder, ignore_errors=True)
    return row


def _disturb_and_resume(
    laboratory: Laboratory, expected: Undisturbed, fault: Fault, folder: Path, row: dict[str, Any], wrong: list[str]
) -> None:
    run, cache = folder / "run", folder / "cache" if fault.own_cache else laboratory.cache
    workers = ("--workers", str(fault.workers))
    length_s = expected.cpu_s[fault.workers, fault.own_cache]
    search = laboratory.start(run, *workers, cache=cache)
    searches = [search]
    row["hit"] = search.wait_for_cpu(fault.moment * length_s)
    if row["hit"]:
        fault.strike(search)
    search.wait()
    _check_end(search, fault, wrong)
    finished = read_memory(run).finished()
    if fault.kind == "truncate":
        row["file"] = fault.damage(run)
    if fault.kind == "kill twice" and search.exit_code != 0:
        again = _resume(laboratory, run, workers, cache)
        searches.append(again)
        if again.wait_for_cpu(fault.second * length_s):
            fault.strike(again)
        again.wait()
        finished |= read_memory(run).finished()
    if fault.kind == "read-only" and (run / "config.yaml").exists():
        refused = laboratory.start(run, *workers, "--resume", cache=cache, before=lambda: mount_read_only(run))
        searches.append(refused)
        if refused.wait() != 2 or "Traceback" in refused.text:
            wrong.append(f"read-only run directory: exit {refused.exit_code}: {refused.text[-400:]}")
    while searches[-1].exit_code != 0 or (fault.kind == "truncate" and len(searches) == 1):
        if row["resumes"] == MOST_RESUMES:
            wrong.append(f"not resumed: exit {searches[-1].exit_code}: {searches[-1].text[-600:]}")
            return
        row["resumes"] += 1
        searches.append(_resume(laboratory, run, workers, cache))
        searches[-1].wait()
        if "Traceback" in searches[-1].text:
            wrong.append(f"traceback: {searches[-1].text[-600:]}")
    wrong.extend(_differences(run, expected, finished))
    wrong.extend(_litter(laboratory, run, cache, searches))


def _resume(laboratory: Laboratory, run: Path, workers: tuple[str, ...], cache: Path) -> Search:
    began = (run / "config.yaml").exists() or (run / ".owner").exists()
    return laboratory.start(run, *workers, *(("--resume",) if began else ()), cache=cache)


def _check_end(search: Search, fault: Fault, wrong: list[str]) -> None:
    """Check that a search which could still say something has said how to go on."""
    text, code = search.text, search.exit_code
    if "Traceback (most recent call last)" in text:
        wrong.append(f"traceback: {text[-600:]}")
    if code in (129, 130, 143) and "interrupted" not in text:
        wrong.append(f"exit {code} without a word: {text[-300:]}")
    if code not in (0, 2, 129, 130, 143, -9):
        wrong.append(f"exit {code}: {text[-300:]}")


def _differences(run: Path, expected: Undisturbed, finished: dict[str, Any]) -> Iterator[str]:
    memory = read_memory(run)
    now = memory.finished()
    for name, outcome in finished.items():
        if name not in now:
            yield f"{name} was finished, and is lost"
        # Worker and seconds are those of the training: another one would have others.
        elif (now[name]["worker"], now[name]["seconds"]) != (outcome["worker"], outcome["seconds"]):
            yield f"{name} was finished, and was trained again"
    open_trials = [number for number, trial in memory.trials.items() if trial["state"] not in _COMPLETE]
    if open_trials:
        yield f"trials {open_trials} are open for ever"
    if memory.comparable() != expected.memory.comparable():
        yield f"other trials than the undisturbed search: {memory.comparable()} != {expected.memory.comparable()}"
    elif comparable_results(run) != expected.results:
        yield "other results than the undisturbed search"


def _litter(laboratory: Laboratory, run: Path, cache: Path, searches: list[Search]) -> Iterator[str]:
    left = [str(path.name) for folder in (run, cache) for path in folder.rglob("*.part")]
    left += [path.name for path in (run / "checkpoints",) if path.exists()]
    left += [path.name for path in laboratory.temporary.iterdir()]
    if left:
        yield f"litter: {left}"
    until = time.monotonic() + _LINGER_S
    while alive := [pid for each in searches for pid in _alive(each)]:
        if time.monotonic() > until:
            yield f"processes left: {alive}"
            return
        time.sleep(0.2)


def _alive(search: Search) -> list[int]:
    return [*processes_of_session(search.pid), *processes_of(f"-{search.pid}-")]


def records(path: Path, seed: int) -> dict[int, dict[str, Any]]:
    """Return the faults of a seed that a record holds already, by number.

    Args:
        path: the record, a JSON object a line.
        seed: seed of the suite.
    """
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {row["number"]: row for row in rows if row["seed"] == seed}
