"""Ray's token: whoever has it may run code on a cluster, and nobody else.

Ray listens on all interfaces, also if it serves one process alone, and runs whatever a client sends. From version 2.59
on a Ray that a process starts asks its clients for a token, which Ray keeps in ``~/.ray/auth_token``; it writes that
file for all to read, so AutoKD makes it first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from pathlib import Path

import ray

from autokd.errors import RuntimeUnavailableError

logger = logging.getLogger(__name__)

LEAST_VERSION = (2, 59)
"""First Ray that asks for a token by itself, if a process starts it."""
MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_REMEDY = (
    "Put the cluster's token (of its head: ~/.ray/auth_token) into ~/.ray/auth_token, mode 0600, or into "
    "RAY_AUTH_TOKEN, and set RAY_AUTH_MODE=token."
)


def prepare_token() -> None:
    """Before a Ray is started here: make sure that it will ask for a token that only this user can read.

    Raises:
        RuntimeUnavailableError: if this Ray is too old to ask for one.
    """
    if os.environ.get(MODE_VARIABLE, "token").lower() != "token":
        logger.warning(
            "%s is %s: everyone who reaches the ports of this machine can run code as you. Unset it.",
            MODE_VARIABLE,
            os.environ[MODE_VARIABLE],
        )
        return
    if _version(ray.__version__) < LEAST_VERSION:
        raise RuntimeUnavailableError(
            f"Ray {ray.__version__} listens on all interfaces and runs what anyone sends: it is started here from "
            f"{'.'.join(map(str, LEAST_VERSION))} on, which asks for a token. Upgrade it: pip install -U "
            '"ray[tune,default]". Or set workers: 0 to train in this process without Ray.'
        )
    if not os.environ.get("RAY_AUTH_TOKEN") and not os.environ.get("RAY_AUTH_TOKEN_PATH"):
        keep_token_private(Path.home() / ".ray" / "auth_token")


def keep_token_private(path: Path) -> None:
    """Make a new token if there is none, and let only its owner read the file.

    Args:
        path: file of the token.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_new(path)
        about = path.stat()
        if stat.S_ISREG(about.st_mode) and about.st_uid == os.geteuid() and about.st_mode & 0o077:
            path.chmod(0o600)
            logger.warning("%s could be read by others; it is private now. Was it used in a cluster? Renew it.", path)
    except OSError as error:
        logger.info("%s cannot be made private: %s", path, error)  # Ray says what it needs


def current_token() -> str | None:
    """Return the token that Ray's clients in this process send; None if they send none."""
    if os.environ.get(MODE_VARIABLE, "").lower() != "token":
        return None
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _write_new(path: Path) -> None:
    """Write a token of 256 random bits; the file appears whole, and another process's stays."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])
