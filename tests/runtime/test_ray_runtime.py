"""Workers in other processes: they die, hang and are interrupted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from autokd.config import RuntimeConfig
from autokd.errors import RuntimeUnavailableError
from autokd.runtime import Runtime, make_runtime
from autokd.testing.scripted_jobs import ListDriver, scripted

HERE = Path(__file__).parent


@pytest.mark.ray
def test_lost_hanging_and_frozen_workers_end_as_outcomes_and_disturb_no_other_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autokd.runtime.ray import tune_bridge

    monkeypatch.setattr(tune_bridge, "_FROZEN_S", 2.0)
    names = [f"die_once:{tmp_path}/died", "die", "ok:3 a", "hang", "ok:3 b", "freeze", "ok:3 c"]
    driver = ListDriver(names)
    with make_runtime(RuntimeConfig(workers=2, max_worker_losses=1, threads_per_worker=3)) as runtime:
        runtime.run(driver, scripted, job_timeouts_s={"proxy": 6.0})
    revived = driver.outcomes[names[0]]
    assert revived.status == "finished"
    assert [report.epoch for report in driver.reports[names[0]]] == [1, 2], "each epoch is reported once"
    assert driver.outcomes["die"].cause == "worker_lost"
    assert "2 times" in driver.outcomes["die"].message
    assert [report.epoch for report in driver.reports["die"]] == [1]
    # The one kills itself at its limit; the other cannot, and is killed by its driver.
    for name in ("hang", "freeze"):
        assert driver.outcomes[name].cause == "timeout"
        assert driver.outcomes[name].seconds < 20
    for name in ("ok:3 a", "ok:3 b", "ok:3 c"):
        assert driver.outcomes[name].status == "finished"
        assert driver.outcomes[name].metrics["threads"] == 3


@pytest.mark.ray
def test_a_lost_worker_is_replaced_though_jobs_are_shorter_than_its_start(tmp_path: Path) -> None:
    """The other worker's jobs end long before a new process has imported what it needs; it must not be given up."""
    names = [f"die_once:{tmp_path}/died", *(f"pause:0.3 {i}" for i in range(120))]
    driver = ListDriver(names)
    with make_runtime(RuntimeConfig(workers=2, max_worker_losses=1)) as runtime:
        runtime.run(driver, scripted)
    assert all(outcome.status == "finished" for outcome in driver.outcomes.values())
    workers = {outcome.worker for outcome in driver.outcomes.values()}
    assert len(workers) == 2, "the one that stayed, and the one in place of the lost one"


def test_a_job_that_waits_long_for_an_actor_goes_to_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from autokd.runtime.ray import tune_bridge

    clock = [100.0]
    monkeypatch.setattr(tune_bridge.time, "monotonic", lambda: clock[0])
    bridge = tune_bridge.Bridge(ListDriver(["a", "b"]), 1, {})
    scheduler = tune_bridge.JobScheduler(bridge)
    for name in ("t1", "t2"):
        assert bridge.next_assignment(name) is not None
    bridge.mark_started("t1")
    trials = [SimpleNamespace(trial_id="t1"), SimpleNamespace(trial_id="t2")]
    controller = SimpleNamespace(get_live_trials=lambda: trials)
    assert bridge.awaits_an_actor
    assert scheduler.choose_trial_to_run(controller) is None
    clock[0] += tune_bridge._ACTOR_START_S + 1
    assert scheduler.choose_trial_to_run(controller) is trials[1]
    bridge.mark_started("t2")
    assert not bridge.awaits_an_actor
    assert scheduler.choose_trial_to_run(controller) is None


def test_a_ray_that_does_not_come_up_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray

    def init(*args: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.")  # bare, as Ray raises it on a busy machine

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("HOME", str(tmp_path))  # where a token is made
    with pytest.raises(RuntimeUnavailableError, match=r"(?s)could not be started.*timed out.*workers: 0"):
        make_runtime(RuntimeConfig(workers=1)).__enter__()


SCRIPT = """
    import os, sys
    sys.path.insert(0, {here!r})
    from autokd.testing.scripted_jobs import ListDriver, scripted
    from autokd.config import RuntimeConfig
    from autokd.runtime import make_runtime

    class Announcing(ListDriver):
        def on_report(self, report):
            print("training", flush=True)
            return super().on_report(report)

    driver = Announcing(["hang a", "hang b"])
    try:
        with make_runtime(RuntimeConfig(workers=2)) as runtime:
            runtime.run(driver, scripted)
    except KeyboardInterrupt:
        import ray
        print("interrupted", len(driver.outcomes), ray.is_initialized(), flush=True)
"""


@pytest.mark.ray
def test_ctrl_c_stops_the_workers_quietly_and_leaves_no_files(tmp_path: Path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(textwrap.dedent(SCRIPT.format(here=str(HERE.parents[1]))))
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "training"
    time.sleep(0.5)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert "interrupted 0 False" in out
    assert time.monotonic() - began < 20
    assert process.returncode == 0
    assert errors == "", "Ray is quiet"
    # Ray keeps a token there, with which its processes know each other.
    assert [entry.name for entry in (tmp_path / "home").iterdir()] in ([], [".ray"])
    assert list((tmp_path / "tmp").iterdir()) == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["home", "interrupted.py", "tmp"]


def test_an_address_where_nobody_listens_is_refused_with_the_remedy() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    runtime: Runtime = make_runtime(RuntimeConfig(workers=1, ray_address=address))
    with pytest.raises(RuntimeUnavailableError, match="ray start --head"):
        runtime.__enter__()


def test_a_port_that_is_not_rays_is_refused_soon() -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        runtime = make_runtime(RuntimeConfig(workers=1, ray_address=f"127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(RuntimeUnavailableError, match="6379"):
            runtime.__enter__()
        thread.join()


@pytest.mark.parametrize(("address", "remedy"), [("ray://host:10001", "autokd submit"), ("somewhere", "host:port")])
def test_addresses_of_another_kind_are_refused(address: str, remedy: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match=remedy):
        make_runtime(RuntimeConfig(workers=1, ray_address=address)).__enter__()


def test_absent_ray_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "autokd.runtime.ray.tune", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RuntimeUnavailableError, match="workers: 0"):
        make_runtime(RuntimeConfig(workers=1))


def test_a_frozen_worker_is_killed_once_and_its_job_ends_as_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Ray: what the driver's process does when a worker says nothing, though its hard limit has passed."""
    from types import SimpleNamespace

    from autokd.runtime.ray import tune_bridge

    killed: list[str] = []
    monkeypatch.setattr(tune_bridge.ray, "kill", killed.append)
    driver = ListDriver(["ok:2 a", "ok:2 b"])
    bridge = tune_bridge.Bridge(driver, 1, {"proxy": 5.0})
    clock = tune_bridge.ClockCallback(bridge)
    trials = [SimpleNamespace(trial_id=name, temporary_state=SimpleNamespace(ray_actor=name)) for name in ("t1", "t2")]
    for trial in trials:
        bridge.next_assignment(trial.trial_id)
        clock.on_trial_start(0, trials, trial)
    clock.on_step_begin(1, trials)
    assert killed == []
    bridge._running["t1"].began_s -= 5.0 + tune_bridge._FROZEN_S + 1.0
    for step in (2, 3):
        clock.on_step_begin(step, trials)
    assert killed == ["t1"]
    bridge.handle_lost_worker("t1", "The actor died.")
    assert driver.outcomes["ok:2 a"].cause == "timeout"
    assert "ok:2 b" not in driver.outcomes
