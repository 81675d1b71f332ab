"""Commands that look and train nothing: data, space, presets, show, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from autokd import api
from autokd.cli.options import CacheDir, ConfigFile, read_config


def data(
    config_file: ConfigFile,
    whole: Annotated[
        bool, typer.Option("--whole", help="Print a digest of every byte of each split, to compare two machines.")
    ] = False,
    cache_dir: CacheDir = None,
) -> None:
    """Print what AutoKD reads of the data of a config: layout, counts, irregularities, images that splits share."""
    from autokd.cli.show import data_lines

    for line in data_lines(read_config(config_file), api.cache_directory(cache_dir), whole=whole):
        typer.echo(line)


def space(
    config_file: ConfigFile,
    samples: Annotated[int, typer.Option(min=0, help="Number of random distillers to print.")] = 3,
) -> None:
    """Print the search space of a config: its choices, its size, and the options that the detectors cannot supply."""
    from autokd.cli.show import space_view
    from autokd.cli.terminal import console

    console().print(space_view(read_config(config_file), samples))


def presets() -> None:
    """List the presets: published distillation losses, with formula and paper."""
    from autokd.cli.show import presets_table
    from autokd.cli.terminal import console

    console().print(presets_table())


def show(
    distiller: Annotated[
        str, typer.Argument(metavar="DISTILLER.yaml", help="YAML file of a distiller, or name of a preset.")
    ],
) -> None:
    """Print a distiller as a formula, one for each family of detectors for which it has terms of its own."""
    from autokd.cli.show import distiller_lines

    api.read_distiller(distiller)  # it names the most similar preset if there is neither a preset nor a file
    typer.echo("\n".join(distiller_lines(distiller)))


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the installation and print the commands that repair it; exit code 1 if AutoKD cannot run."""
    from autokd.cli import doctor
    from autokd.cli.terminal import console

    findings = doctor.examine()
    if as_json:
        typer.echo(doctor.as_json(findings))
    else:
        console().print(doctor.as_table(findings))
    if not doctor.base_works(findings):
        raise typer.Exit(1)
