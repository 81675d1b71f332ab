"""``autokd cache``: the teachers' outputs that the cache folder holds, and their removal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Optional

import typer

from autokd import api

cache_app = typer.Typer(help="List and remove the teachers' outputs in the cache folder.", no_args_is_help=True)

CacheDir = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads annotations on Python 3.10)
    typer.Option("--cache-dir", envvar="AUTOKD_CACHE", help="Cache folder. Default: .autokd_cache."),
]


@cache_app.command("list")
def list_outputs(cache_dir: CacheDir = None) -> None:
    """List the outputs with their sizes, those that were not used for longest first."""
    from rich.console import Console
    from rich.table import Table

    from autokd.study.bill import size_words
    from autokd.training.assets.teachers import TAPS_FOLDER
    from autokd.training.teacher.cache_room import stored_outputs

    root = api.cache_directory(cache_dir) / TAPS_FOLDER
    found = stored_outputs(root)
    table = Table("outputs", "size", "used", "state", title=str(root))
    for each in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(each.used_s))
        table.add_row(each.folder.name, size_words(each.num_bytes), used, "whole" if each.is_whole else "not finished")
    table.add_section()
    table.add_row("sum", size_words(sum(each.num_bytes for each in found)), "", "")
    Console().print(table)


@cache_app.command()
def clear(
    unused_days: Annotated[float, typer.Option(min=0, help="Remove those that no run has used for so many days.")] = 0,
    cache_dir: CacheDir = None,
) -> None:
    """Remove outputs that no process has open. A run that needs them computes them again; teachers stay."""
    from autokd.study.bill import size_words
    from autokd.training.assets.teachers import TAPS_FOLDER
    from autokd.training.teacher.cache_room import days_unused, remove, stored_outputs

    removed = in_use = 0
    for each in stored_outputs(api.cache_directory(cache_dir) / TAPS_FOLDER):
        if days_unused(each) < unused_days:
            continue
        if remove(each):
            removed += each.num_bytes
        else:
            in_use += 1
    typer.echo(f"removed {size_words(removed)}" + (f"; {in_use} are in use and stay" if in_use else ""))
