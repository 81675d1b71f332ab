"""Shared fixtures: the photographs where they are present, one thread for torch, Hypothesis' profiles."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests and what they start share the cores
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a script's background; tests send Ctrl-C to what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What `make test` says is a function of the commit: equal inputs each time. HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

BCCD = Path(os.environ.get("AUTOKD_BCCD", Path(__file__).parents[2] / "shared" / "data" / "bccd"))


@pytest.fixture(scope="session")
def bccd_root() -> Path:
    """The BCCD photographs; tests that need them skip where they are absent."""
    if not (BCCD / "instances_train.json").exists():
        pytest.skip(f"the BCCD photographs are not at {BCCD}; set AUTOKD_BCCD to their folder")
    return BCCD
