"""A search over several nodes of which one is lost, one comes late, and whose driver dies; ``make chaos`` runs it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.chaos.cluster import play

pytestmark = pytest.mark.cluster


def _may_mount() -> bool:
    command = ["unshare", "--mount", "--propagation", "private", "true"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not _may_mount(), reason="nodes of one machine need mount namespaces (root, util-linux)")
def test_nodes_and_drivers_may_die_and_come_and_nothing_is_lost_or_repeated(tmp_path: Path) -> None:
    found = play(tmp_path)
    assert found["finished"] > found["finished before the driver was killed"]
