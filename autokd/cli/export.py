"""``autokd export``: a run's student as ONNX, TorchScript or safetensors, compared with itself."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autokd import api
from autokd.cli.options import AsJson, CacheDir, Quiet

if TYPE_CHECKING:
    from rich.table import Table

    from autokd.inference import Export


class Format(str, Enum):
    """Format of an exported file."""

    onnx = "onnx"
    torchscript = "torchscript"
    safetensors = "safetensors"


def export(
    source: Annotated[str, typer.Argument(metavar="RUN|WEIGHTS", help="Run directory, or a file of weights.")],
    formats: Annotated[list[Format], typer.Option("--format", help="Format of the file; may be repeated.")],
    out: Annotated[
        Optional[Path],  # noqa: UP045 (typer reads annotations on Python 3.10)
        typer.Option("--out", help="Folder of the files. Default: that of the weights."),
    ] = None,
    images: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--images", help="Images to compare on. Default: the first 8 test images of the run."),
    ] = None,
    config_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", metavar="CONFIG.yaml", help="Config file of weights outside of a run directory."),
    ] = None,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Export a student, and print how it differs from the trained one, its size and latency; exit code 1 if it does."""
    found = api.export(
        source,
        [one.value for one in formats],
        out,
        config=config_file,
        images=images or (),
        cache_dir=cache_dir,
    )
    if as_json:
        typer.echo(json.dumps(found.to_data(), indent=1))
    elif not quiet:
        from autokd.cli.terminal import console

        console().print(export_table(found))
        for note in found.notes:
            typer.echo(note)
        for model in found.models:
            typer.echo(model.path)
    if not all(model.differences.is_within_tolerance for model in found.models):
        raise typer.Exit(1)


def export_table(found: Export) -> Table:
    """Return a row for each file, and one for each teacher.

    Args:
        found: the exported files.
    """
    from rich.table import Table

    from autokd.inference import TOLERANCE_PX, TOLERANCE_SCORE

    table = Table(
        title=f"one image on this machine's CPU, {found.threads} threads",
        caption=f"Tolerance: {TOLERANCE_PX:g} px and {TOLERANCE_SCORE:g}; every box of one side has its partner.",
    )
    table.add_column("model")
    for name in ("size", "latency", "boxes", "box differs", "score differs", "unmatched"):
        table.add_column(name, justify="right")
    eager_ms = found.models[0].latency.eager_ms
    table.add_row("student, PyTorch", _megabytes(found.student_bytes), f"{eager_ms:.1f} ms", "", "", "", "")
    for model in found.models:
        there = model.differences
        table.add_row(
            f"student, {model.format}",
            _megabytes(model.size_bytes),
            f"{model.latency.exported_ms:.1f} ms",
            str(there.num_boxes),
            f"{there.max_box_px:.2g} px",
            f"{there.max_score:.2g}",
            str(there.num_unmatched),
        )
    for teacher in found.teachers:
        weights = "" if teacher.has_weights else " (random weights)"
        size, latency = _megabytes(teacher.size_bytes), f"{teacher.latency_ms:.1f} ms"
        table.add_row(f"teacher, PyTorch{weights}", size, latency, "", "", "", "")
    return table


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
