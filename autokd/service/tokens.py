"""Tokens: made by a command, shown once, stored as digests, each with a role.

A token has 256 random bits, so that its plain SHA-256 digest cannot be reversed by guessing; a slow hash, which
passwords need, would only cost time at each request.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import Literal, get_args

from sqlalchemy import select

from autokd.errors import AutoKDError, one_of
from autokd.service.database import Database, Token

Role = Literal["read", "submit", "admin"]
"""read: look and download. submit: also submit, and stop, resume, change and delete one's own searches. admin: all
searches, and the audit log."""
ROLES: tuple[Role, ...] = get_args(Role)
_RANK = {role: rank for rank, role in enumerate(ROLES)}
_PREFIX = "akd_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class User:
    """The owner of a token.

    Args:
        name: name of the token.
        role: its role.
    """

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether this role includes another.

        Args:
            role: role that is needed.
        """
        return _RANK[self.role] >= _RANK[role]

    def may_change(self, owner: str) -> bool:
        """Return whether a search may be stopped, resumed, changed and deleted.

        Args:
            owner: owner of the search.
        """
        return self.role == "admin" or (self.role == "submit" and self.name == owner)


class TokenBook:
    """Tokens of a database.

    Args:
        database: database of the service.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, role: str) -> str:
        """Make a token and return it; it cannot be read again.

        Args:
            name: name of its owner, unique.
            role: "read", "submit" or "admin".

        Raises:
            AutoKDError: if the name is taken or not plain, or there is no such role.
        """
        if not _NAME.fullmatch(name):
            raise AutoKDError(f"the name {name[:80]!r} has other characters than letters, digits and ._@-, or is long.")
        if role not in ROLES:
            raise AutoKDError(one_of(role, ROLES, noun="role"))
        text = _PREFIX + secrets.token_urlsafe(32)
        with self._database.session() as session:
            if session.get(Token, name) is not None:
                raise AutoKDError(f"there is a token {name!r} already. Choose another name; revoked names stay taken.")
            session.add(Token(name=name, role=role, digest=digest_of_token(text), created_s=time.time()))
        return text

    def revoke(self, name: str) -> None:
        """End a token; searches of its owner stay.

        Args:
            name: name of the token.

        Raises:
            AutoKDError: if there is none.
        """
        with self._database.session() as session:
            token = session.get(Token, name)
            if token is None:
                names = session.scalars(select(Token.name)).all()
                raise AutoKDError(one_of(name, names, noun="token"))
            token.revoked_s = token.revoked_s or time.time()

    def list(self) -> list[Token]:
        """Return all tokens, revoked ones too, by name."""
        return self._database.run(lambda session: [*session.scalars(select(Token).order_by(Token.name))])

    def user_of(self, text: str) -> User | None:
        """Return the owner of a token, or None if it is not known or revoked.

        Args:
            text: token as a request brought it.
        """
        if not text.startswith(_PREFIX) or len(text) > 200:
            return None
        wanted = select(Token).where(Token.digest == digest_of_token(text), Token.revoked_s.is_(None))
        token = self._database.run(lambda session: session.scalars(wanted).first())
        return None if token is None else User(token.name, token.role)  # type: ignore[arg-type]


def digest_of_token(text: str) -> str:
    """Return the digest under which a token is stored: 64 hexadecimal digits.

    Args:
        text: the token.
    """
    return hashlib.sha256(text.encode()).hexdigest()
