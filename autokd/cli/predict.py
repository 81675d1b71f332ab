"""``autokd predict``: boxes of a trained detector on images and videos, as pictures, COCO JSON and CSV."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from autokd import api
from autokd.cli.options import AsJson, CacheDir, Quiet


class Output(str, Enum):
    """Form of the predictions."""

    pictures = "pictures"
    coco = "coco"
    csv = "csv"


def predict(
    source: Annotated[
        str,
        typer.Argument(
            metavar="RUN|WEIGHTS", help="Run directory, file of weights, or safetensors file of `autokd export`."
        ),
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGES...", help="Images, videos, folders of them, or quoted globs.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the predictions.")] = Path("predictions"),
    forms: Annotated[
        Optional[list[Output]],  # noqa: UP045 (typer reads annotations on Python 3.10)
        typer.Option("--format", help="Form of the predictions; may be repeated. Default: all."),
    ] = None,
    threshold: Annotated[float, typer.Option(min=0, max=1, help="Least score of a box.")] = 0.3,
    config_file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--config", metavar="CONFIG.yaml", help="Config file of weights outside of a run directory."),
    ] = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="Predict by the teacher, with its own weights.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Number of images that the detector sees at once.")] = 8,
    every: Annotated[int, typer.Option(min=1, help="Number of a video's frames of which one is taken.")] = 1,
    cache_dir: CacheDir = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Detect on images and videos; write pictures with boxes, COCO JSON and CSV."""
    from autokd.cli.progress import counting

    side: Literal["student", "teacher"] = "teacher" if teacher else "student"
    chosen = [form.value for form in (forms or list(Output))]
    with counting("images", is_quiet=quiet or as_json) as count:
        summary = api.predict(
            source,
            images,
            out,
            forms=chosen,
            threshold=threshold,
            config=config_file,
            side=side,
            batch_size=batch_size,
            every=every,
            cache_dir=cache_dir,
            on_image=count,
        )
    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    elif not quiet:
        typer.echo(f"{summary['images']} images, {summary['boxes']} boxes of a score of {threshold:g} or more")
        for path in summary["files"]:
            typer.echo(path)
