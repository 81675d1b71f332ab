"""The end of a command by a signal: in order, with a word on how to go on, and in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import sys, time
from pathlib import Path
from autokd.cli import ending as module
from autokd.cli.app import app, main

@app.command()
def wait(how: str) -> None:
    module.ending.run_dir = Path(sys.argv[2]).parent
    if how.endswith("hangs"):
        module.GRACE_S = 0.3
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("cleaned up", flush=True)
        if how.endswith("hangs"):
            time.sleep(60)

main()
"""
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def started(folder: Path, how: str) -> subprocess.Popen[str]:
    (folder / "config.yaml").touch()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "wait", str(folder / how)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_signals_end_a_command_as_ctrl_c_does_and_say_how_to_go_on(tmp_path: Path) -> None:
    processes = {number: started(tmp_path, "ends") for number in CODES}
    for number, process in processes.items():
        process.send_signal(number)
    for number, process in processes.items():
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (CODES[number], "cleaned up\n")
        assert f"What has finished is kept in {tmp_path}; continue with --resume." in err
        assert "Traceback" not in err


def test_a_clean_up_that_hangs_is_cut_off_with_the_same_words(tmp_path: Path) -> None:
    process = started(tmp_path, "hangs")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == CODES[signal.SIGTERM]
    assert "(SIGTERM)" in err
    assert "continue with --resume" in err


def test_a_signal_that_was_ignored_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    from autokd.cli.ending import ended_by_signals

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with ended_by_signals():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert callable(signal.getsignal(signal.SIGTERM))
    finally:
        signal.signal(signal.SIGHUP, before)
