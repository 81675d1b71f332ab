"""A few faults of the chaos suite; ``make chaos`` runs hundreds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="faults hit forked processes")]


def test_a_search_survives_the_first_faults_of_the_suite(tmp_path: Path) -> None:
    # In a process of its own: the suite forks, and this one may have threads.
    arguments = ["--count", "2", "--ray-share", "0", "--quick", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "tests.chaos", *arguments]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all          2 of 2" in ended.stdout
