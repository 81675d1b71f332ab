"""A whole day of a service by REST, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service needs autokd[service]")

ROOT = Path(__file__).parents[2]


def play(*words: str) -> str:
    path = os.pathsep.join((str(ROOT), str(ROOT / "dashboard"), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "service" / "day.py"), "--stand-in", *words],
        env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_day_with_processes() -> None:
    assert "the day is over" in play("--backend", "processes")


@pytest.mark.ray
def test_a_day_with_a_local_ray() -> None:
    assert "the day is over" in play("--backend", "ray")
