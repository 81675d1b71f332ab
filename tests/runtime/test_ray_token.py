"""A Ray that AutoKD starts obeys this user alone: its token, the token's file, and its folder."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from autokd.errors import RuntimeUnavailableError
from autokd.runtime.ray.token import keep_token_private, prepare_token

ray = pytest.importorskip("ray")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_token_is_long_and_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / ".ray" / "auth_token"
    before = os.umask(0)
    try:
        keep_token_private(path)
    finally:
        os.umask(before)
    assert _mode(path) == 0o600
    assert _mode(path.parent) == 0o700
    token = path.read_text()
    assert len(bytes.fromhex(token)) == 32
    keep_token_private(path)
    assert path.read_text() == token
    assert [entry.name for entry in path.parent.iterdir()] == ["auth_token"]


def test_a_token_that_ray_wrote_for_all_to_read_is_made_private(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "auth_token"
    path.write_text("ab" * 32)
    path.chmod(0o644)
    keep_token_private(path)
    assert _mode(path) == 0o600
    assert path.read_text() == "ab" * 32
    assert "could be read by others" in caplog.text


def test_a_ray_that_asks_for_no_token_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    for version in ("2.40.0", "2.58.2"):
        monkeypatch.setattr(ray, "__version__", version)
        with pytest.raises(RuntimeUnavailableError, match=r"from 2\.59 on.*Upgrade it"):
            prepare_token()


def test_a_token_that_is_switched_off_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with caplog.at_level(logging.WARNING):
        prepare_token()
    assert "can run code as you" in caplog.text


SESSION = """
import json, os, stat, subprocess, sys
from autokd.runtime.ray.session import RaySession

session = RaySession(None, 1)
session.open()
import ray
from ray._raylet import AuthenticationMode, get_authentication_mode
# The folder that Ray was given lies in one that AutoKD made.
folder = os.path.dirname(ray._private.worker._global_node.get_temp_dir_path())
mode = lambda path: stat.S_IMODE(os.stat(path).st_mode)
context = ray.get_runtime_context()
found = {
    "asks": get_authentication_mode() == AuthenticationMode.TOKEN,
    "outer": mode(folder),
    "inner": os.listdir(folder),
    "token": mode(os.path.expanduser("~/.ray/auth_token")),
}
asker = (
    "import sys; from ray._raylet import GcsClient; "
    "print('GOT', GcsClient(address=sys.argv[1]).get_all_node_info())"
)
clients = {"without": {"RAY_AUTH_MODE": "disabled"}, "wrong": {"RAY_AUTH_TOKEN": "0" * 64}, "with": {}}
for name, changes in clients.items():
    environment = os.environ | {"RAY_gcs_rpc_server_reconnect_timeout_s": "5"} | changes
    command = [sys.executable, "-c", asker, context.gcs_address]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    found[name] = "GOT" in done.stdout
    found[name + "_said"] = done.stderr[-300:]
session.close()
found["left"] = os.path.exists(folder)
print("FOUND", json.dumps(found))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_local_ray_answers_only_clients_with_the_token_and_hides_its_folder(tmp_path: Path) -> None:
    import json

    (tmp_path / "session.py").write_text(SESSION)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    # A loaded machine takes longer than Ray waits.
    environment |= {"RAY_raylet_start_wait_time_s": "200", "RAY_agent_register_timeout_ms": "200000"}
    environment["HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "session.py")], env=environment, capture_output=True, text=True, timeout=600
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("FOUND ")), "")
    assert line, done.stdout + done.stderr
    found = json.loads(line.removeprefix("FOUND "))
    assert found["asks"] is True
    assert found["outer"] == 0o700
    assert found["inner"] == ["ray"]
    assert found["token"] == 0o600
    assert found["with"] is True, found
    assert found["without"] is False
    assert found["wrong"] is False
    assert found["left"] is False
