"""The audit log: who did what, when, from where; written with the change or not at all."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from autokd.service.database import AuditEntry, Database

MAX_DETAIL = 2000
"""Characters of a detail that are kept."""


def note(session: Session, who: str, action: str, search: str = "", detail: str = "", address: str = "") -> None:
    """Add a line to the log, in the transaction of what it is about.

    Args:
        session: session of that transaction.
        who: name of the token.
        action: verb, such as "submit".
        search: id of the search; empty: it is about none.
        detail: what exactly.
        address: address of the client.
    """
    session.add(
        AuditEntry(
            at_s=time.time(), who=who, action=action, search=search, detail=detail[:MAX_DETAIL], address=address[:100]
        )
    )


def entries(database: Database, limit: int = 200, search: str = "") -> Sequence[AuditEntry]:
    """Return the last lines of the log, the newest first.

    Args:
        database: database of the service.
        limit: number of lines.
        search: id of the search that they are about; empty: all.
    """
    wanted = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if search:
        wanted = wanted.where(AuditEntry.search == search)
    return database.run(lambda session: session.scalars(wanted).all())
