"""A cluster whose GPUs are not up is asked for them, and its CPUs are never taken in their place without a word."""

from __future__ import annotations

from typing import Any

import pytest

from autokd.errors import RuntimeUnavailableError
from autokd.jobs import WorkerResources

session = pytest.importorskip("autokd.runtime.ray.session")


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes of a cluster: a head with four cores."""
    found = [{"Alive": True, "Resources": {"CPU": 4.0}}]
    monkeypatch.setattr(session.ray, "nodes", lambda: found)
    monkeypatch.setattr(session, "GPU_POLL_S", 0.0)
    monkeypatch.setattr(session, "GPU_WAIT_S", 0.05)
    return found


def test_auto_is_refused_with_both_remedies(nodes: list[dict[str, Any]]) -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"has no GPU now.*Set it to 0 to train on CPUs, or to 1"):
        session.RaySession("head:6379", 1).divide(2, 0, "auto")


def test_cpus_are_taken_if_they_are_asked_for(nodes: list[dict[str, Any]]) -> None:
    assert session.RaySession("head:6379", 1).divide(2, 0, 0) == WorkerResources(2, "cpu", 0.0)
    assert session.RaySession(None, 1).divide(2, 1, "auto").device == "cpu", "a Ray of our own sees this machine"


def test_gpus_are_asked_for_and_waited_for(nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def start(bundles: Any) -> None:
        asked.extend(bundles)
        nodes.append({"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}})

    monkeypatch.setattr(session, "request_resources", start)
    assert session.RaySession("head:6379", 1).divide(2, 3, 1).gpu_fraction == 1.0
    assert asked == [{"GPU": 1}, {"GPU": 1}]


def test_gpus_that_do_not_come_are_an_error(nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "request_resources", lambda bundles: None)
    with pytest.raises(RuntimeUnavailableError, match="gpus_per_worker is 1, but Ray sees 0 GPUs"):
        session.RaySession("head:6379", 1).divide(1, 1, 1)
