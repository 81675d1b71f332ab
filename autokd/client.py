"""``autokd.Client``: the verbs of a service as methods. Nothing beyond Python's standard library is needed.

Example::

    client = autokd.Client("https://autokd.example", token)
    search = client.submit("kd.yaml", {"search.trials": 60})
    for part in client.logs(search["id"], follow=True):
        print(part, end="")
    client.download(search["id"], "student", "student.pt")
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from autokd.connection import Connection, ServiceError

Rows = list[dict[str, Any]]
ENDED_STATES = ("finished", "stopped", "failed")


class Client:
    """A connection to a service (``autokd serve``).

    Args:
        address: address of the service; None: the environment variable AUTOKD_SERVICE.
        token: token; "@FILE": the file that holds it; None: the environment variable AUTOKD_TOKEN, likewise.
        timeout_s: seconds to wait for an answer.

    Raises:
        ServiceError: if no address or token is given, or the file of the token cannot be read.
    """

    def __init__(self, address: str | None = None, token: str | None = None, *, timeout_s: float = 60.0) -> None:
        self._connection = Connection(address, token, timeout_s)

    def submit(
        self, config: str | Path | Mapping[str, Any], overrides: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Submit a search.

        Args:
            config: path of a config file, its YAML text, or the same as a mapping. Its paths are absolute, as the
                cluster sees them.
            overrides: dotted keys -> values in place of the file's, such as ``{"search.trials": 60}``.

        Returns:
            The search: its id, state and so on.

        Raises:
            ServiceError: if the service refuses it; the message says why.
        """
        text = _config_text(config)
        named = (
            {} if re.search(r"^name:", text, re.MULTILINE) or not _is_path(config) else {"name": Path(str(config)).stem}
        )
        body = {"config": text, "overrides": named | dict(overrides or {})}
        found: dict[str, Any] = self._connection.json("POST", "searches", body)
        return found

    def list(self, *, owner: str = "", state: str = "", text: str = "", limit: int = 200) -> Rows:
        """Return searches, the newest first.

        Args:
            owner: name of a token; empty: of all.
            state: state; empty: all.
            text: part of a name; empty: all.
            limit: number of searches.

        Raises:
            ServiceError: if the service does not answer.
        """
        asked = {"owner": owner, "state": state, "text": text, "limit": limit}
        found: Rows = self._connection.json("GET", f"searches?{urlencode(asked)}")
        return found

    def status(self, search_id: str) -> dict[str, Any]:
        """Return the state of a search.

        Args:
            search_id: id of the search.

        Raises:
            ServiceError: if there is none.
        """
        found: dict[str, Any] = self._connection.json("GET", _place(search_id))
        return found

    def wait(self, search_id: str, *, poll_s: float = 5.0, timeout_s: float | None = None) -> dict[str, Any]:
        """Return the state of a search once it is over.

        Args:
            search_id: id of the search.
            poll_s: seconds between two looks.
            timeout_s: seconds to wait; None: no limit.

        Raises:
            ServiceError: if it is not over in time.
        """
        began = time.monotonic()
        while (found := self.status(search_id))["state"] not in ENDED_STATES:
            if timeout_s is not None and time.monotonic() - began > timeout_s:
                raise ServiceError(f"search {search_id} is {found['state']} after {timeout_s:.0f} s.")
            time.sleep(poll_s)
        return found

    def logs(self, search_id: str, *, follow: bool = False) -> Iterator[str]:
        """Yield the parts of a search's log.

        Args:
            search_id: id of the search.
            follow: go on until the search is over.

        Raises:
            ServiceError: if there is no such search.
        """
        query = "?follow=true" if follow else ""
        with self._connection.open("GET", f"{_place(search_id)}/logs{query}", is_endless=follow) as answer:
            while part := answer.read1(2**16):
                yield part.decode(errors="replace")

    def stop(self, search_id: str) -> dict[str, Any]:
        """End a search; what has finished is kept.

        Args:
            search_id: id of the search.

        Raises:
            ServiceError: if it is over, or another's.
        """
        found: dict[str, Any] = self._connection.json("POST", f"{_place(search_id)}/stop")
        return found

    def resume(self, search_id: str) -> dict[str, Any]:
        """Continue a search that was stopped or has failed.

        Args:
            search_id: id of the search.

        Raises:
            ServiceError: if it runs or has finished, or is another's.
        """
        found: dict[str, Any] = self._connection.json("POST", f"{_place(search_id)}/resume")
        return found

    def set_budget(self, search_id: str, trials: int) -> dict[str, Any]:
        """Change the number of trials; a finished search goes on if there are more.

        Args:
            search_id: id of the search.
            trials: number of trials to evaluate in all.

        Raises:
            ServiceError: if the number is out of range, or the search another's.
        """
        found: dict[str, Any] = self._connection.json("PATCH", _place(search_id), {"trials": trials})
        return found

    def delete(self, search_id: str) -> None:
        """End a search, and remove its run directory.

        Args:
            search_id: id of the search.

        Raises:
            ServiceError: if it is another's.
        """
        self._connection.open("DELETE", _place(search_id)).close()

    def results(self, search_id: str) -> dict[str, Any]:
        """Return the content of results.json.

        Args:
            search_id: id of the search.

        Raises:
            ServiceError: if there are none yet.
        """
        found: dict[str, Any] = self._connection.json("GET", f"{_place(search_id)}/results")
        return found

    def files(self, search_id: str) -> dict[str, dict[str, Any]]:
        """Return the kinds of files that can be downloaded: student, distiller, report, onnx, ...

        Args:
            search_id: id of the search.

        Raises:
            ServiceError: if there is no such search.
        """
        found: dict[str, dict[str, Any]] = self._connection.json("GET", f"{_place(search_id)}/files")
        return found

    def download(self, search_id: str, kind: str, path: str | Path) -> Path:
        """Download a file; it appears whole or not at all.

        Args:
            search_id: id of the search.
            kind: kind of file, as ``files`` lists them.
            path: file to write, or a folder for a file of the service's name.

        Returns:
            Path of the file.

        Raises:
            ServiceError: if the search has no such file.
        """
        from autokd.files import atomic_file

        target = Path(path)
        if target.is_dir():
            target = target / self.files(search_id).get(kind, {"name": kind})["name"]
        with (
            self._connection.open("GET", f"{_place(search_id)}/files/{quote(kind, safe='')}") as answer,
            atomic_file(target) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
        return target

    def compare(self, search_ids: Sequence[str]) -> Rows:
        """Return two to four searches side by side.

        Args:
            search_ids: their ids.

        Raises:
            ServiceError: if there are fewer or more, or one does not exist.
        """
        found: Rows = self._connection.json("GET", f"compare?{urlencode({'ids': ','.join(search_ids)})}")
        return found

    def audit(self, *, limit: int = 200) -> Rows:
        """Return the audit log, the newest line first; for admins.

        Args:
            limit: number of lines.

        Raises:
            ServiceError: if the token's role is another.
        """
        found: Rows = self._connection.json("GET", f"audit?limit={limit}")
        return found


def _place(search_id: str) -> str:
    return f"searches/{quote(search_id, safe='')}"


def _is_path(config: str | Path | Mapping[str, Any]) -> bool:
    return isinstance(config, Path) or (isinstance(config, str) and "\n" not in config)


def _config_text(config: str | Path | Mapping[str, Any]) -> str:
    if isinstance(config, Mapping):
        from autokd.documents import dump_yaml

        return dump_yaml(dict(config))
    if isinstance(config, str) and not _is_path(config):
        return config
    try:
        return Path(config).read_text(encoding="utf-8")
    except OSError as error:
        raise ServiceError(f"the config file cannot be read: {error}.") from error


__all__ = ["Client", "ServiceError"]
