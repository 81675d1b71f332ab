"""Addresses of databases: passwords stay out of command lines, job entry points, errors and names of files."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from autokd.cli.storage import chosen_storage, storage_for_job
from autokd.errors import StorageError
from autokd.storage import has_secret, open_existing, open_study, read_address, shown, storage_url

SECRET = "hunter2%21"
WITH_SECRET = [
    f"postgresql+psycopg://user:{SECRET}@127.0.0.1:1/db",
    f"postgresql+psycopg://127.0.0.1:1/db?user=user&password={SECRET}",
    f"postgresql+psycopg://127.0.0.1:1/db?sslpassword={SECRET}&sslkey={SECRET}",
]
BROKEN = [
    f"postgresql+psycopg://user:{SECRET}@127.0.0.1:abc/db",
    f"postgresql+psycopg://user@127.0.0.1:{SECRET}/db",
    f"postgresql:///user:{SECRET}@[host/db",
    f"nosuch://user:{SECRET}@host/db",
    f"://user:{SECRET}@host/db",
    f"postgres:/user:{SECRET}@host/db",
    f"user:{SECRET}@host/db",
    f"postgresql:user:{SECRET}@host",
    f"postgresql+psycopg://127.0.0.1:1/db?password={SECRET}&port=abc",
    f"postgresql+psycopg://127.0.0.1:1/db?password={SECRET}&nosuchoption=1",
]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOKD_STORAGE", raising=False)


@pytest.mark.parametrize("opened", [open_study, open_existing])
@pytest.mark.parametrize("address", [*WITH_SECRET, *BROKEN])
def test_no_error_repeats_a_password_and_no_file_is_made(opened, address: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        opened(address, "search")
    assert "hunter2" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("address", [*WITH_SECRET, *BROKEN])
def test_an_address_is_shown_without_its_password(address: str) -> None:
    assert "hunter2" not in shown(address)


def test_addresses_without_a_password_are_shown_whole(tmp_path: Path) -> None:
    assert shown("postgresql+psycopg://user@host/db") == "postgresql+psycopg://user@host/db"
    assert shown(tmp_path / "study.db") == str(tmp_path / "study.db")
    assert shown(WITH_SECRET[0]) == "postgresql+psycopg://user:***@127.0.0.1:1/db"


@pytest.mark.parametrize("address", WITH_SECRET)
def test_a_password_on_the_command_line_is_refused(address: str) -> None:
    assert has_secret(address)
    with pytest.raises(StorageError, match=r"AUTOKD_STORAGE.*@FILE.*PGPASSFILE") as caught:
        chosen_storage(address)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", WITH_SECRET)
def test_the_environment_may_hold_a_password_and_a_job_gets_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOKD_STORAGE", address)
    assert chosen_storage(None) == address
    with pytest.raises(StorageError, match="which the cluster would show") as caught:
        storage_for_job(None)
    assert "hunter2" not in str(caught.value)


def test_the_command_line_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOKD_STORAGE", "postgresql+psycopg://one@host/db")
    assert chosen_storage("postgresql+psycopg://two@host/db") == "postgresql+psycopg://two@host/db"
    assert storage_for_job(None) == "postgresql+psycopg://one@host/db"
    monkeypatch.delenv("AUTOKD_STORAGE")
    assert chosen_storage(None) is None
    assert storage_for_job(None) is None


def test_a_file_that_only_its_owner_reads_holds_the_address(tmp_path: Path) -> None:
    path = tmp_path / "address"
    path.write_text(f"{WITH_SECRET[0]}\n")
    path.chmod(0o600)
    assert chosen_storage(f"@{path}") == read_address("@address") == WITH_SECRET[0]
    assert storage_for_job("@address") == f"@{path}"
    assert storage_url("@address") == WITH_SECRET[0]
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(StorageError, match=f"others may read it .mode {mode:04o}.*chmod 600"):
            read_address("@address")
    path.chmod(0o600)
    for text in ("", "two words", f"{WITH_SECRET[0]}\n{WITH_SECRET[1]}"):
        path.write_text(text)
        with pytest.raises(StorageError, match="the address of the storage alone") as caught:
            read_address("@address")
        assert "hunter2" not in str(caught.value)
    with pytest.raises(StorageError, match="cannot be read from this file"):
        read_address("@nowhere")


def test_paths_of_files_are_still_paths(tmp_path: Path) -> None:
    folder = tmp_path / "me@home"
    folder.mkdir()
    open_study(folder / "study.db", "search")
    assert open_existing(str(folder)).study_name == open_existing(str(folder / "study.db")).study_name == "search"
    assert open_study("plain.db", "search").study_name == "search"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("plain.db-")) == [
        "me@home",
        "plain.db",
    ]


def test_postgresqls_own_file_of_passwords_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libpq reads PGPASSFILE for each connection: the address needs no password. A socket plays the server."""
    psycopg = pytest.importorskip("psycopg")
    import socket
    import threading

    # PostgreSQL's protocol 3.0: the server asks for a password in clear text (R, 8 bytes, kind 3), and gets it (p).
    got: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        listener.close()  # a second attempt is refused at once, where an open socket would let it wait for minutes
        with connection:
            while True:
                first = connection.recv(4096)
                if first[4:8] in (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30"):  # asks for TLS or GSS: no
                    connection.sendall(b"N")
                    continue
                break
            connection.sendall(b"R\x00\x00\x00\x08\x00\x00\x00\x03")
            got.append(connection.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        (tmp_path / "pgpass").write_text(f"127.0.0.1:{port}:db:user:hunter2\n")
        (tmp_path / "pgpass").chmod(0o600)
        monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
        with pytest.raises(StorageError, match="cannot be opened") as caught:
            open_existing(f"postgresql+psycopg://user@127.0.0.1:{port}/db")
        thread.join(10)
    assert psycopg.__name__ in sys.modules
    assert b"hunter2\0" in got[0]
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in os.environ.get("AUTOKD_STORAGE", "")
