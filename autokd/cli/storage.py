"""The option ``--storage``: from the command line without a password, else from the environment or a file."""

from __future__ import annotations

import os

from autokd.errors import StorageError
from autokd.storage import PASSWORD_REMEDY, STORAGE_VARIABLE, has_secret, read_address, shown


def chosen_storage(option: str | None) -> str | None:
    """Return the address of the study's database.

    Args:
        option: value of ``--storage``: an address without a password, a path, or "@FILE"; None: the environment
            variable AUTOKD_STORAGE has it, if it is set.

    Returns:
        The address, read from the file if one was named; None: none was given.

    Raises:
        StorageError: if the command line has a password, or the file cannot be read or may be read by others.
    """
    if option is not None and has_secret(option):
        raise StorageError(
            f"--storage {shown(option)}: the address has a password, which every user of this machine sees in the list "
            f"of processes. {PASSWORD_REMEDY}"
        )
    address = option if option is not None else os.environ.get(STORAGE_VARIABLE)
    return read_address(address) if address else None


def storage_for_job(option: str | None) -> str | None:
    """Return what ``--storage`` of a submitted job says: its entry point is shown to all who reach the cluster.

    Args:
        option: value of ``--storage`` of ``autokd submit``.

    Returns:
        An address without a password, or "@FILE" with a path that the cluster must see; None: none was given.

    Raises:
        StorageError: if the address has a password.
    """
    address = option if option is not None else os.environ.get(STORAGE_VARIABLE) or None
    if address is not None and has_secret(address):
        raise StorageError(
            f"--storage {shown(address)}: the address has a password, which the cluster would show to all who reach "
            "it. Leave the password out, and put it where the job runs: into PostgreSQL's own ~/.pgpass (PGPASSFILE); "
            "or name a file there with the whole address, --storage @/path/on/the/cluster."
        )
    return f"@{os.path.abspath(address[1:])}" if address and address.startswith("@") else address
