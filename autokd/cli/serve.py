"""``autokd serve`` and ``autokd token``: run a service, and say who may use it."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from autokd.errors import AutoKDError

if TYPE_CHECKING:
    from autokd.service.tokens import TokenBook

INSTALL = "pip install 'autokd[service]'"

token_app = typer.Typer(help="Make, list and revoke the tokens of a service.", no_args_is_help=True)
Folder = Annotated[
    Path, typer.Option("--folder", envvar="AUTOKD_SERVICE_FOLDER", help="Folder of the service: database, runs, cache.")
]
DatabaseAddress = Annotated[
    Optional[str],  # noqa: UP045 (typer reads annotations on Python 3.10)
    typer.Option(
        "--database",
        envvar="AUTOKD_SERVICE_DATABASE",
        help="Address of the service's database, or @FILE. Default: SQLite.",
    ),
]


class BackendName(str, Enum):
    """What runs the searches."""

    ray = "ray"
    processes = "processes"


class RoleName(str, Enum):
    """Role of a token."""

    read = "read"
    submit = "submit"
    admin = "admin"


def serve(
    folder: Folder = Path("service"),
    root: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option("--root", help="Folder that config files may name, with everything below it; may be repeated."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than the loopback need TLS before them.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8100,
    name: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--name", help="Further host name by which browsers reach the service; may be repeated."),
    ] = None,
    database: DatabaseAddress = None,
    backend: Annotated[
        BackendName, typer.Option(help="What runs searches: Ray jobs, or processes here.")
    ] = BackendName.ray,
    ray_address: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--ray-address", help="Job server of a Ray cluster, http://host:8265. Default: a Ray is started here."
        ),
    ] = None,
    command: Annotated[
        str,
        typer.Option(
            help="Command of autokd where searches run, such as 'apptainer exec kd.sif autokd'. Default: found."
        ),
    ] = "",
    storage: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--storage", help="Database of all studies, or @FILE. Default: study.db of each run."),
    ] = None,
    running: Annotated[int, typer.Option(min=1, help="Searches that run at once; others wait.")] = 20,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a second of one token.")] = 100.0,
    price: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0, help="Price of an hour of a running search, to show costs."),
    ] = None,
    currency: Annotated[str, typer.Option(help="Currency of the price.")] = "USD",
    allow_mmdetection: Annotated[
        bool, typer.Option("--allow-mmdetection", help="Let config files name configs of MMDetection, which are code.")
    ] = False,
) -> None:
    """Serve searches of several users: pages for a browser, REST for scripts, until Ctrl-C."""
    _require_extra()
    from autokd.cli.storage import storage_for_job
    from autokd.runtime.resources import num_local_cores
    from autokd.service.serve import check_roots, make_backend, run_service
    from autokd.service.settings import Limits, ServiceSettings

    roots = tuple(each.absolute() for each in root or ())
    check_roots(roots)
    settings = ServiceSettings(
        folder=folder.absolute(),
        roots=roots,
        database=_database(database),
        allows_mmdetection=allow_mmdetection,
        limits=Limits(running=running, requests_per_s=rate, burst=max(1, int(2 * rate))),
        price=price,
        currency=currency,
        storage=None if storage is None else storage_for_job(storage),
    )
    made = make_backend(settings, backend.value, ray_address, num_local_cores(), tuple(shlex.split(command)))
    run_service(settings, made, host, port, tuple(name or ()))


@token_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of its owner; it appears in lists and the audit log.")],
    role: Annotated[RoleName, typer.Option(help="read: look and download; submit: own searches; admin: all.")],
    folder: Folder = Path("service"),
    database: DatabaseAddress = None,
) -> None:
    """Make a token and print it; it is stored as a digest, so this is the only time."""
    typer.echo(_book(folder, database).create(name, role.value))


@token_app.command("list")
def list_(folder: Folder = Path("service"), database: DatabaseAddress = None) -> None:
    """List the tokens: names and roles."""
    for token in _book(folder, database).list():
        typer.echo(f"{token.name}  {token.role}{'  revoked' if token.revoked_s else ''}")


@token_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the token.")],
    folder: Folder = Path("service"),
    database: DatabaseAddress = None,
) -> None:
    """End a token, within two seconds also in a service that runs."""
    _book(folder, database).revoke(name)


def _book(folder: Path, database: str | None) -> TokenBook:
    _require_extra()
    from autokd.files import make_private_folder
    from autokd.service.database import Database
    from autokd.service.settings import ServiceSettings
    from autokd.service.tokens import TokenBook

    make_private_folder(folder)
    settings = ServiceSettings(folder.absolute(), database=_database(database))
    return TokenBook(Database(settings.database_address))


def _database(option: str | None) -> str | None:
    from autokd.storage import read_address

    return None if option is None else read_address(option)


def _require_extra() -> None:
    try:
        import fastapi
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise AutoKDError(f"the service needs further packages ({error}). Install them: {INSTALL}") from error
    del fastapi
