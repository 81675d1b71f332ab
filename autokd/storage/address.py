"""Addresses of databases: where they come from, and how they are shown without what is secret in them.

An address may hold a password. It then belongs into the environment or a file: a command line is in the process list,
and a job's entry point is shown to all who reach the cluster. PostgreSQL's library also reads a password of its own
(PGPASSFILE, ~/.pgpass, PGPASSWORD), so that the address needs none.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from autokd.errors import StorageError

STORAGE_VARIABLE = "AUTOKD_STORAGE"
"""Environment variable with the address of the database."""
FILE_SIGN = "@"
"""Begins the name of a file that holds the address."""
ALLOWED_ADDRESSES = (
    "AutoKD takes the path of a SQLite file, or an address: postgresql+psycopg://user@host/db, or that of a gRPC "
    "proxy, grpc://host:13000."
)
PASSWORD_REMEDY = (
    f"Put the address into the environment variable {STORAGE_VARIABLE}, or into a file that only you can read "
    f"(--storage {FILE_SIGN}FILE), or the password into PostgreSQL's own ~/.pgpass (PGPASSFILE)."
)

_SECRET_WORD = re.compile(r"pass|secret|token|key", re.IGNORECASE)
_LOOKS_LIKE_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")
"""A scheme of two letters or more, so that a drive of Windows is none."""


def parse_address(url_or_path: str | Path) -> URL:
    """Return the address of a database.

    Args:
        url_or_path: path of a SQLite file, an address, or "@FILE" with the name of a file that holds one. A ``Path`` is
            taken as it is.

    Raises:
        StorageError: if it is none; the text is not repeated, since it may hold a password.
    """
    if isinstance(url_or_path, Path):
        return _file(url_or_path)
    text = read_address(url_or_path)
    if "://" in text:
        try:
            url = make_url(text)
        except (ArgumentError, ValueError):
            url = None
        # With a slash too many, user and password are taken for the name of the database.
        if url is None or (url.get_backend_name() != "sqlite" and FILE_SIGN in (url.database or "")):
            # Without SQLAlchemy's words, which repeat the address.
            raise StorageError(
                f"the storage {scheme_of(text)!r}... is no address: its parts cannot be distinguished. Check slashes "
                f"and port, and write special characters of the password as %XX. {ALLOWED_ADDRESSES}"
            )
        return url
    if not os.path.exists(text) and (FILE_SIGN in text or _LOOKS_LIKE_ADDRESS.match(text)):
        raise StorageError(
            f"the storage that begins with {scheme_of(text)!r} is neither an address, which has ://, nor the path of a "
            f"file, which has no @ and no colon before a slash. {ALLOWED_ADDRESSES}"
        )
    return _file(Path(text))


def read_address(text: str) -> str:
    """Return an address as it is; of "@FILE", the first line of the file.

    Args:
        text: path, address or "@FILE".

    Raises:
        StorageError: if the file is missing or empty, or others may read it.
    """
    if not text.startswith(FILE_SIGN):
        return text
    path = Path(text[len(FILE_SIGN) :]).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            lines = file.read(10_000).split()
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise StorageError(f"{path}: the address of the storage cannot be read from this file: {error}.") from None
    if os.name == "posix" and stat.S_ISREG(mode) and mode & 0o077:
        raise StorageError(
            f"{path}: holds the address of the storage, and others may read it (mode {stat.S_IMODE(mode):04o}). Take "
            "that right away: chmod 600."
        )
    if len(lines) != 1:
        raise StorageError(
            f"{path}: holds {len(lines)} words; write the address of the storage alone. {ALLOWED_ADDRESSES}"
        )
    return lines[0]


def has_secret(address: str) -> bool:
    """Return whether an address holds a password.

    Args:
        address: path or address; "@FILE" is not read.

    Raises:
        StorageError: if it is neither.
    """
    if address.startswith(FILE_SIGN):
        return False
    url = parse_address(address)
    return url.password is not None or any(_SECRET_WORD.search(name) for name in url.query)


def shown(url_or_path: URL | str | Path) -> str:
    """Return an address for messages: the path of a file, or an address without what is secret in it.

    Args:
        url_or_path: path, address or "@FILE".
    """
    if not isinstance(url_or_path, URL):
        if str(url_or_path).startswith(FILE_SIGN):
            return str(url_or_path)
        try:
            url_or_path = parse_address(url_or_path)
        except StorageError:
            return f"{scheme_of(str(url_or_path))}..."
    if url_or_path.get_backend_name() == "sqlite":
        return str(url_or_path.database)
    secret = {name: "***" for name in url_or_path.query if _SECRET_WORD.search(name)}
    return url_or_path.update_query_dict(secret).render_as_string(hide_password=True)


def without_secrets(message: str, url: URL) -> str:
    """Return a message of a database's driver with the secrets of an address blotted out.

    Args:
        message: what the driver says.
        url: the address that it was given.
    """
    secrets = [url.password, *(value for name, value in url.query.items() if _SECRET_WORD.search(name))]
    for secret in secrets:
        for text in (secret,) if isinstance(secret, str) else (secret or ()):
            message = message.replace(text, "***") if text else message
    return message


def scheme_of(text: str) -> str:
    """Return what stands before the first colon or @, at most 20 characters of it: no password stands there.

    Args:
        text: what should be an address.
    """
    return re.split(r"[:@]", text, maxsplit=1)[0][:20]


def _file(path: Path) -> URL:
    return URL.create("sqlite", database=str(path.absolute()))
