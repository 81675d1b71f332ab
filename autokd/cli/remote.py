"""``autokd remote``: the verbs of a service from a shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from autokd.errors import ConfigError

if TYPE_CHECKING:
    from autokd.client import Client

remote_app = typer.Typer(
    help="Submit, watch, stop, download searches of a service; AUTOKD_SERVICE: its address, AUTOKD_TOKEN: the token.",
    no_args_is_help=True,
)
SearchId = Annotated[str, typer.Argument(metavar="SEARCH", help="Id of the search.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@remote_app.command()
def submit(
    config_file: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="Config file with the cluster's paths.")],
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer reads annotations on Python 3.10)
        typer.Option("--set", metavar="KEY=VALUE", help="Value in place of the file's, e.g. search.trials=60."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Print the log until the search is over.")] = False,
) -> None:
    """Submit a search and print its id."""
    client = _client()
    search = client.submit(config_file, overrides_of(set_ or []))
    typer.echo(search["id"])
    if follow:
        _follow(client, search["id"])


@remote_app.command("list")
def list_(
    owner: Annotated[str, typer.Option(help="Only searches of this token.")] = "",
    state: Annotated[str, typer.Option(help="Only searches in this state.")] = "",
    text: Annotated[str, typer.Option(help="Only searches with this in their name.")] = "",
    as_json: AsJson = False,
) -> None:
    """List searches, the newest first."""
    found = _client().list(owner=owner, state=state, text=text)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    from rich.console import Console

    Console().print(_table(found))


@remote_app.command()
def status(search: SearchId, as_json: AsJson = False) -> None:
    """Print the state of a search."""
    found = _client().status(search)
    lines = (f"{key}: {value}" for key, value in found.items() if value not in (None, ""))
    typer.echo(json.dumps(found, indent=1) if as_json else "\n".join(lines))


@remote_app.command()
def logs(
    search: SearchId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the search is over.")] = False,
) -> None:
    """Print the log of a search."""
    for part in _client().logs(search, follow=follow):
        typer.echo(part, nl=False)


@remote_app.command()
def stop(search: SearchId) -> None:
    """End a search; what has finished is kept."""
    typer.echo(_client().stop(search)["state"])


@remote_app.command()
def resume(search: SearchId) -> None:
    """Continue a search that was stopped or has failed."""
    typer.echo(_client().resume(search)["state"])


@remote_app.command()
def budget(
    search: SearchId, trials: Annotated[int, typer.Argument(min=1, help="Number of trials to evaluate in all.")]
) -> None:
    """Change the number of trials."""
    typer.echo(_client().set_budget(search, trials)["state"])


@remote_app.command()
def delete(search: SearchId) -> None:
    """End a search, and remove its run directory."""
    _client().delete(search)


@remote_app.command()
def results(search: SearchId, as_json: AsJson = False) -> None:
    """Print the results of a search."""
    found = _client().results(search)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    from rich.console import Console

    from autokd.report import results_table
    from autokd.storage import Results

    Console().print(results_table(Results.model_validate(found)))


@remote_app.command()
def download(
    search: SearchId,
    kind: Annotated[str, typer.Argument(help="student, distiller, report, onnx, results, config, mmdet.")] = "student",
    path: Annotated[Path, typer.Option("--to", help="File or folder to write to.")] = Path("."),
) -> None:
    """Download a file of a search."""
    typer.echo(_client().download(search, kind, path))


@remote_app.command()
def compare(searches: Annotated[list[str], typer.Argument(metavar="SEARCH...", help="Two to four ids.")]) -> None:
    """Print two to four searches side by side."""
    from rich.console import Console

    Console().print(_comparison(_client().compare(searches)))


def overrides_of(texts: list[str]) -> dict[str, Any]:
    """Return overrides from ``KEY=VALUE``, the value in YAML.

    Args:
        texts: words of the command line.

    Raises:
        ConfigError: if one has no "=".
    """
    from autokd.documents import load_document

    found = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise ConfigError(f"--set {text!r} is not KEY=VALUE, such as search.trials=60.")
        found[key] = load_document(f"value: {value}\n").data["value"]
    return found


def _client() -> Client:
    from autokd.client import Client

    return Client()


def _follow(client: Client, search_id: str) -> None:
    for part in client.logs(search_id, follow=True):
        typer.echo(part, nl=False)
    found = client.status(search_id)
    typer.echo(f"{found['state']} {found['message']}".rstrip())
    if found["state"] == "failed":
        raise typer.Exit(1)


def _table(found: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "name", "owner", "state", "trials", "best", "test AP", "none")
    for each in found:
        done = "" if each["trials_done"] is None else f"{each['trials_done']}/"
        cells = (each["id"], each["name"], each["owner"], each["state"], f"{done}{each['trials']}")
        table.add_row(*map(Text, cells), _number(each["best"]), _number(each["winner_ap"]), _number(each["none_ap"]))
    return table


def _comparison(columns: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("")
    for each in columns:
        table.add_column(Text(each["name"] or each["id"]))  # a name is no markup
    for key in ("id", "state", "trials", "best", "best_formula", "winner", "winner_ap", "none_ap"):
        values = (each[key] for each in columns)
        table.add_row(
            key.replace("_", " "), *(Text(_number(v) if isinstance(v, float) else str(v or "")) for v in values)
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
