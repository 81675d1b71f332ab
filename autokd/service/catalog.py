"""The searches of a service as the pages see them, for one user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

from autokd.errors import AutoKDError
from autokd.service.database import Search
from autokd.service.searches import UnknownSearchError
from autokd.service.service import Service
from autokd.service.tokens import User
from autokd.storage import read_address
from autokd_dashboard.catalog import NoRunError, RefusedError, RunCard


@dataclass
class ServiceCatalog:
    """Searches of a service.

    Args:
        service: the service.
        account: who asks.
        address: address of the client, for the audit log.
    """

    service: Service
    account: User
    address: str = ""
    is_single: bool = False

    @property
    def user(self) -> str:
        """Name of the user."""
        return self.account.name

    @property
    def currency(self) -> str:
        """Currency of costs."""
        return self.service.settings.currency

    def cards(self, *, owner: str = "", state: str = "", text: str = "") -> Sequence[RunCard]:
        """Return searches, the newest first.

        Args:
            owner: owner; empty: all.
            state: state; empty: all.
            text: part of the name; empty: all.
        """
        found = self.service.searches.list(owner=owner, state=state, text=text, limit=500)
        return [self._card(search) for search in found]

    def card(self, run_id: str) -> RunCard:
        """Return a search.

        Args:
            run_id: its id.

        Raises:
            NoRunError: if there is none.
        """
        return self._card(self._search(run_id))

    def storage(self, run_id: str) -> str | None:
        """Return the address of the studies' database; None: study.db in the run directory.

        Args:
            run_id: id of the search.
        """
        address = self.service.settings.storage
        return None if address is None else read_address(address)

    def log(self, run_id: str) -> str:
        """Return the log of a search so far.

        Args:
            run_id: its id.
        """
        return self.service.log(run_id)

    def verbs(self, run_id: str) -> Sequence[str]:
        """Return the verbs that the user may do now.

        Args:
            run_id: id of the search.
        """
        search = self._search(run_id)
        if not self.account.may_change(search.owner):
            return ()
        fitting = {"queued": ("stop",), "running": ("stop",), "stopped": ("resume",), "failed": ("resume",)}
        return (*fitting.get(search.state, ()), "budget", "delete")

    def act(self, run_id: str, verb: str, trials: int = 0) -> None:
        """Do a verb.

        Args:
            run_id: id of the search.
            verb: "stop", "resume", "budget" or "delete".
            trials: number of trials, for a budget.

        Raises:
            NoRunError: if there is no such search.
            RefusedError: if it is not allowed or does not fit.
        """
        book = self.service.searches
        try:
            if verb == "budget":
                book.set_budget(self.account, run_id, trials, self.address)
            else:
                {"stop": book.stop, "resume": book.resume, "delete": book.delete}[verb](
                    self.account, run_id, self.address
                )
        except UnknownSearchError as error:
            raise NoRunError(str(error)) from None
        except AutoKDError as error:
            raise RefusedError(str(error)) from None

    def _search(self, run_id: str) -> Search:
        try:
            return self.service.searches.get(run_id)
        except UnknownSearchError as error:
            raise NoRunError(str(error)) from None

    def _card(self, search: Search) -> RunCard:
        info = self.service.info(search).model_dump()
        return RunCard(**{field.name: info[field.name] for field in fields(RunCard)})
