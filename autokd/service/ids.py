"""Ids of searches: short, hard to guess, in the order of time."""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
PATTERN = re.compile(rf"[{_ALPHABET}]{{13}}")
"""What an id looks like: it becomes a folder's name and a part of a job's id."""


def new_id() -> str:
    """Return a new id: 7 characters of the time in seconds, 6 random ones (Crockford's base 32)."""
    seconds, digits = int(time.time()), ""
    for _ in range(7):
        seconds, digit = divmod(seconds, 32)
        digits = _ALPHABET[digit] + digits
    return digits + "".join(secrets.choice(_ALPHABET) for _ in range(6))
