"""The verbs of the service on its searches. Each is one transaction with its line in the audit log.

A verb writes what is wanted and returns; ``Reconciler`` makes it so. So a service that dies in between loses nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from autokd.errors import AutoKDError, ConfigError
from autokd.files import write_text_atomically
from autokd.service.audit import note
from autokd.service.database import OPEN_STATES, Database, Search
from autokd.service.ids import new_id
from autokd.service.settings import ServiceSettings
from autokd.service.submissions import check_submission, overridden
from autokd.service.tokens import User

CONFIG_FILE = "config.yaml"
MAX_TRIALS = 1_000_000


class UnknownSearchError(AutoKDError):
    """There is no search of an id."""


class ForbiddenError(AutoKDError):
    """A token's role does not allow a verb."""


class ConflictError(AutoKDError):
    """A verb does not fit the state of a search."""


class SearchBook:
    """Submit, list, stop, resume, delete, and change the budget of searches.

    Args:
        database: database of the service.
        settings: rules of the service.
        wake: called after a change, so that it happens soon.
    """

    def __init__(self, database: Database, settings: ServiceSettings, wake: Callable[[], None] = lambda: None) -> None:
        self._database = database
        self._settings = settings
        self._wake = wake

    def submit(self, user: User, text: str, overrides: Mapping[str, Any], address: str = "") -> Search:
        """Check a config file and queue its search.

        Args:
            user: who submits.
            text: YAML text of the config file.
            overrides: dotted keys -> values in place of the file's.
            address: address of the client.

        Raises:
            ConfigError: if the file is wrong or not allowed here.
            ForbiddenError: if the token may not submit.
            ConflictError: if the token has too many open searches.
        """
        if not user.may("submit"):
            raise ForbiddenError(f"the token {user.name!r} may read only; submitting needs the role 'submit'.")
        config = check_submission(text, overrides, self._settings)
        search_id = new_id()
        # Studies of one database are distinguished by their names.
        name = config.name if self._settings.storage is None else f"{config.name}-{search_id}"
        search = Search(
            id=search_id, name=name, owner=user.name, trials=config.search.trials, created_s=time.time(),
            wanted="run", state="queued", attempt=0, losses=0, message="", running_s=0.0, summary={},
        )  # fmt: skip
        _write_submission(self._settings, search.id, text, {**overrides, "name": name})

        def work(session: Session) -> Search:
            wanted = select(func.count()).where(Search.owner == user.name, Search.state.in_(OPEN_STATES))
            if (count := session.scalar(wanted) or 0) >= self._settings.limits.open_searches:
                raise ConflictError(f"{user.name!r} has {count} open searches, the most allowed. Stop or await some.")
            session.add(search)
            note(session, user.name, "submit", search.id, f"{config.name}, {config.search.trials} trials", address)
            return search

        return self._done(work)

    def list(self, *, owner: str = "", state: str = "", text: str = "", limit: int = 1000) -> Sequence[Search]:
        """Return searches, the newest first.

        Args:
            owner: owner; empty: all.
            state: state; empty: all.
            text: part of the name or the id; empty: all.
            limit: number of searches.
        """
        wanted = select(Search).where(Search.wanted != "delete").order_by(Search.created_s.desc()).limit(limit)
        if owner:
            wanted = wanted.where(Search.owner == owner)
        if state:
            wanted = wanted.where(Search.state == state)
        if text:
            wanted = wanted.where(Search.name.icontains(text, autoescape=True) | (Search.id == text))
        return self._database.run(lambda session: session.scalars(wanted).all())

    def get(self, search_id: str) -> Search:
        """Return a search.

        Args:
            search_id: its id.

        Raises:
            UnknownSearchError: if there is none.
        """
        return self._database.run(lambda session: _existing(session, search_id))

    def stop(self, user: User, search_id: str, address: str = "") -> Search:
        """End a search; what has finished is kept, and ``resume`` continues it.

        Args:
            user: who asks.
            search_id: id of the search.
            address: address of the client.

        Raises:
            ConflictError: if it is over.
            ForbiddenError: if it is another's.
            UnknownSearchError: if there is none.
        """

        def change(search: Search) -> str:
            if not search.is_open:
                raise ConflictError(f"search {search_id} is {search.state}: there is nothing to stop.")
            search.wanted, search.state = "stop", "stopping"
            return ""

        return self._change(user, search_id, "stop", change, address)

    def resume(self, user: User, search_id: str, address: str = "") -> Search:
        """Continue a search that was stopped or has failed.

        Args:
            user: who asks.
            search_id: id of the search.
            address: address of the client.

        Raises:
            ConflictError: if it runs or has finished.
            ForbiddenError: if it is another's.
            UnknownSearchError: if there is none.
        """

        def change(search: Search) -> str:
            if search.state not in ("stopped", "failed"):
                raise ConflictError(f"search {search_id} is {search.state}: only a stopped or failed one is resumed.")
            _queue(search)
            return ""

        return self._change(user, search_id, "resume", change, address)

    def set_budget(self, user: User, search_id: str, trials: int, address: str = "") -> Search:
        """Change the number of trials. A running search is resumed with it; a finished one goes on.

        Args:
            user: who asks.
            search_id: id of the search.
            trials: number of trials to evaluate in all.
            address: address of the client.

        Raises:
            ConfigError: if the number is out of range.
            ForbiddenError: if the search is another's.
            UnknownSearchError: if there is none.
        """
        if not 1 <= trials <= MAX_TRIALS:
            raise ConfigError(f"found {trials} trials; allowed are 1 to {MAX_TRIALS}.")

        def change(search: Search) -> str:
            before, search.trials = search.trials, trials
            if search.state == "finished" and trials > before:
                _queue(search)
            return f"{before} -> {trials} trials"

        return self._change(user, search_id, "budget", change, address)

    def delete(self, user: User, search_id: str, address: str = "") -> None:
        """End a search, and remove its run directory.

        Args:
            user: who asks.
            search_id: id of the search.
            address: address of the client.

        Raises:
            ForbiddenError: if it is another's.
            UnknownSearchError: if there is none.
        """

        def change(search: Search) -> str:
            search.wanted = "delete"
            search.state = "stopping" if search.is_open else search.state
            return search.name

        self._change(user, search_id, "delete", change, address)

    def _change(self, user: User, search_id: str, action: str, change: Callable[[Search], str], address: str) -> Search:
        def work(session: Session) -> Search:
            search = _existing(session, search_id)
            if not user.may_change(search.owner):
                raise ForbiddenError(
                    f"search {search_id} belongs to {search.owner!r}; the token {user.name!r} with the role "
                    f"{user.role!r} may not {action} it."
                )
            note(session, user.name, action, search_id, change(search), address)
            return search

        return self._done(work)

    def _done(self, work: Callable[[Session], Search]) -> Search:
        search = self._database.run(work)
        self._wake()
        return search


def _existing(session: Session, search_id: str) -> Search:
    search = session.get(Search, search_id)
    if search is None or search.wanted == "delete":
        raise UnknownSearchError(f"there is no search {search_id[:40]!r}.")
    return search


def _queue(search: Search) -> None:
    search.wanted, search.state, search.message, search.ended_s, search.losses = "run", "queued", "", None, 0


def _write_submission(settings: ServiceSettings, search_id: str, text: str, overrides: Mapping[str, Any]) -> None:
    from autokd.documents import dump_yaml, load_document

    data = overridden(load_document(text).data, overrides)
    write_text_atomically(settings.submission(search_id) / CONFIG_FILE, dump_yaml(data))
