"""``autokd init``: asks for data and detectors, looks at them, and writes a config file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autokd import api
from autokd.cli.options import CacheDir
from autokd.errors import ConfigError

if TYPE_CHECKING:
    from autokd.starter import Findings

STUDENT, TEACHER = "fcos/resnet18", "fcos/resnet50"


def init(
    out: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="File to write.")] = Path("kd.yaml"),
    data: Annotated[Optional[str], typer.Option("--data", help="Folder of the data set.")] = None,  # noqa: UP045
    teacher: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Teacher: ARCHITECTURE/BACKBONE, one of torchvision's builders, or a config of MMDetection."),
    ] = None,
    student: Annotated[Optional[str], typer.Option(help="Student, likewise.")] = None,  # noqa: UP045
    checkpoint: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Weights of the teacher. Default: the run trains it."),
    ] = None,
    budget: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=2, help="Cost of the search in full trainings. Default: that of a file without one."),
    ] = None,
    trials: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Number of short trainings to evaluate, in place of a budget."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0, help="Seconds to measure for the forecast of what a search costs; 0: none.")
    ] = 10.0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Write a commented config file for a data set and two detectors, and say what a search would cost."""
    if out.exists() and not force:
        raise ConfigError(f"{out}: there is such a file. Choose another name, or give --force.")
    from autokd.starter import choose, config_text, look

    asks = sys.stdin.isatty()
    root = data or _answer("Folder of the data set", "data", asks, option="--data")
    findings = look(Path(root), api.cache_directory(cache_dir))
    for line in findings.lines():
        typer.echo(line)
    student = student or _answer("Student", STUDENT, asks)
    teacher = teacher or _answer("Teacher", TEACHER, asks)
    if checkpoint is None and asks:
        checkpoint = _chosen_checkpoint(findings)
    choices = choose(
        findings, name=_name(out), teacher=teacher, student=student, checkpoint=checkpoint, budget=budget, trials=trials
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    text = config_text(choices)
    _check(text, cache_dir)
    out.write_text(text, encoding="utf-8")
    typer.echo(f"written: {out}")
    if seconds > 0:
        bill = api.plan(out, cache_dir=cache_dir, seconds=seconds)
        typer.echo(bill.line())
        if excess := bill.excess():
            typer.echo(f"It does not fit on this machine: {excess}")
    typer.echo(f"next: autokd search {out}")


def _answer(question: str, default: str, asks: bool, option: str = "") -> str:
    """Ask on a terminal; elsewhere take the default, unless an option must say it."""
    if asks:
        return str(typer.prompt(question, default=default))
    if option:
        raise ConfigError(f"there is no terminal to ask on. Give {option}.")
    return default


def _chosen_checkpoint(findings: Findings) -> Path | None:
    if not findings.checkpoints:
        return None
    for number, path in enumerate(findings.checkpoints, start=1):
        typer.echo(f"  {number}: {path}")
    number = typer.prompt("Weights of the teacher (a number; 0: train it here)", default=0, type=int)
    return findings.checkpoints[number - 1] if 0 < number <= len(findings.checkpoints) else None


def _name(out: Path) -> str:
    from autokd.files import name_problem

    return out.stem if name_problem(out.stem) is None else "autokd"


def _check(text: str, cache_dir: Path | None) -> None:
    """Read the text as `autokd search` would, and build the detectors, so that a file that was written works."""
    from autokd.config import load_config
    from autokd.data import load_datasets
    from autokd.detectors import resolve, try_detectors

    config = resolve(load_config(text))
    datasets = load_datasets(config.data, api.cache_directory(cache_dir), check=False)
    try_detectors(config, datasets.classes, datasets.train.image_size_px)
