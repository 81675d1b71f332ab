"""The parts of a service, put together: database, tokens, searches, jobs."""

from __future__ import annotations

from pathlib import Path

from autokd.files import make_private_folder
from autokd.service.database import Database, Search
from autokd.service.jobs import JobBackend
from autokd.service.logs import log_text
from autokd.service.reconcile import Reconciler
from autokd.service.schemas import SearchInfo, search_info
from autokd.service.searches import SearchBook
from autokd.service.settings import ServiceSettings
from autokd.service.tokens import TokenBook


class Service:
    """Everything that requests and pages need. ``start`` begins to run jobs, ``close`` leaves them alone.

    Args:
        settings: what the operator decides.
        backend: what runs the jobs.

    Attributes:
        database: database of the service.
        tokens: known tokens.
        searches: verbs on searches.
        reconciler: loop that makes them so.
    """

    def __init__(self, settings: ServiceSettings, backend: JobBackend) -> None:
        make_private_folder(settings.folder)
        self.settings = settings
        self.backend = backend
        self.database = Database(settings.database_address)
        self.tokens = TokenBook(self.database)
        self.reconciler = Reconciler(self.database, backend, settings)
        self.searches = SearchBook(self.database, settings, self.reconciler.wake)

    def start(self) -> None:
        """Begin to bring jobs and states together."""
        self.reconciler.start()

    def close(self) -> None:
        """End the loop and the connections; jobs go on."""
        self.reconciler.close()
        self.database.close()

    def run_directory(self, search_id: str) -> Path:
        """Return the run directory of a search.

        Args:
            search_id: id of the search.

        Raises:
            UnknownSearchError: if there is none.
        """
        return self.settings.run_directory(self.searches.get(search_id).id)

    def info(self, search: Search) -> SearchInfo:
        """Return a search as clients see it.

        Args:
            search: the search.
        """
        return search_info(search, str(self.settings.run_directory(search.id)), self.settings.price)

    def log(self, search_id: str) -> str:
        """Return the log of a search so far.

        Args:
            search_id: id of the search.
        """
        return log_text(self.searches.get(search_id), self.backend, self.settings)
