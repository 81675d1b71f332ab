"""A PostgreSQL server of the tests' own: in a temporary folder, on a socket, with a password."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

_START_S = 60.0
_NAME = "autokd"


def binaries() -> Path | None:
    """Return the folder of PostgreSQL's programs: that on the path, or the newest of Debian's."""
    if found := shutil.which("initdb"):
        return Path(os.path.realpath(found)).parent
    folders = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").is_file()]
    return max(folders, key=lambda path: int(path.parent.name), default=None)


def require_postgresql() -> None:
    """Skip where no server can be started, with the reason."""
    pytest.importorskip("psycopg", reason='no driver: pip install "autokd[postgresql]"')
    if binaries() is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    if os.geteuid() == 0 and _user() is None:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _user() -> str | None:
    """Return whom root starts the server as; None without root."""
    for name in ("postgres", "nobody") if os.geteuid() == 0 else ():
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    return None


class PostgresServer:
    """A server that can be killed and started again; the context removes it with its data.

    Attributes:
        password: of its only user; ``passfile`` has it in the form of ``PGPASSFILE``.
    """

    def __init__(self) -> None:
        bin_folder = binaries()
        assert bin_folder is not None
        self._bin = bin_folder
        self._process: subprocess.Popen[bytes] | None = None
        self._next_database = 0
        # A short path: that of a socket may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="autokd-pg-", dir="/tmp"))
        self.password = secrets.token_hex(16)
        self.passfile = self.folder / "passfile"
        self._identity: dict[str, object] = {}
        if user := _user():
            about = pwd.getpwnam(user)
            self._identity = {"user": about.pw_uid, "group": about.pw_gid, "extra_groups": []}
            os.chown(self.folder, about.pw_uid, about.pw_gid)
        self.passfile.write_text(f"*:*:*:{_NAME}:{self.password}\n")
        self.passfile.chmod(0o600)

    def __enter__(self) -> PostgresServer:
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)  # within a folder of mode 0700
        try:
            options = [f"--username={_NAME}", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8"]
            self._run("initdb", f"--pgdata={self.folder / 'data'}", *options, "--locale=C", "--no-sync")
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # "fast": open connections are closed
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
        self._remove()

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        until_s = time.monotonic() + _START_S
        while True:
            self._process = self._serve()
            while self._process.poll() is None:
                if self._answers():
                    return
                assert time.monotonic() < until_s, self._log()
                time.sleep(0.05)
            # After a kill the processes of the old server still hold its memory for a moment.
            assert time.monotonic() < until_s, self._log()
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the server at once, as the kernel does when memory runs out; its processes notice it and end."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def new_database(self) -> str:
        """Make an empty database; return its address, which has no password."""
        import psycopg

        self._next_database += 1
        name = f"search{self._next_database}"
        with psycopg.connect(**self._connection(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        return self.address(name)

    def address(self, name: str) -> str:
        """Return the address of a database, without a password."""
        return f"postgresql+psycopg://{_NAME}@/{name}?host={self.folder}"

    def copy(self, source: str, target: str) -> None:
        """Dump a database by ``pg_dump`` and restore it into an empty one by ``pg_restore``; both by address."""
        environment = os.environ | {"PGPASSFILE": str(self.passfile)}
        common = [f"--host={self.folder}", f"--username={_NAME}", "--no-password"]
        names = [address.split("@/")[1].split("?")[0] for address in (source, target)]
        dumped = subprocess.run(
            [self._bin / "pg_dump", *common, "--format=custom", names[0]],
            env=environment,
            check=True,
            stdout=subprocess.PIPE,
        )
        restore = [self._bin / "pg_restore", *common, "--exit-on-error", f"--dbname={names[1]}"]
        subprocess.run(restore, env=environment, check=True, input=dumped.stdout)

    def _serve(self) -> subprocess.Popen[bytes]:
        settings = ["listen_addresses=", f"unix_socket_directories={self.folder}", "shared_buffers=8MB", "fsync=off"]
        # Without fsync a killed server still loses nothing: the kernel has what was written.
        options = [word for setting in settings for word in ("-c", setting)]
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [self._bin / "postgres", "-D", self.folder / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self._identity,  # type: ignore[call-overload]
            )

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(**self._connection()).close()
        except psycopg.OperationalError:
            return False
        return True

    def _connection(self) -> dict[str, str]:
        return {"host": str(self.folder), "user": _NAME, "password": self.password, "dbname": "postgres"}

    def _run(self, program: str, *options: str) -> None:
        done = subprocess.run(
            [self._bin / program, *options], cwd="/", capture_output=True, text=True, timeout=120, **self._identity
        )  # type: ignore[call-overload]
        assert done.returncode == 0, done.stdout + done.stderr

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")[-3000:]
        return "no log"

    def _remove(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
