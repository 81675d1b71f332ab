"""Searches in a PostgreSQL server of the tests' own: killed while they run, dumped, behind Optuna's gRPC proxy."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
from optuna.trial import TrialState

from autokd.cli.storage import chosen_storage
from autokd.errors import StorageError
from autokd.search import MCTSSampler
from autokd.storage import StudyFacts, open_existing, open_study, read_record
from autokd.study.resume import recover_trials
from tests.support.postgresql import PostgresServer, require_postgresql
from tests.support.study_fakes import FakeEvaluator, make_driver, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    require_postgresql()
    with PostgresServer() as started:
        yield started


@pytest.fixture(autouse=True)
def password(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL's own file has the password, and the addresses have none."""
    monkeypatch.setenv("PGPASSFILE", str(server.passfile))
    for name in ("PGPASSWORD", "AUTOKD_STORAGE"):
        monkeypatch.delenv(name, raising=False)


class Killed(BaseException):
    """As a kill would end the driver: nothing is cleaned up."""


def search(address: str, evaluator: FakeEvaluator, *, trials: int, owner: str = "me") -> optuna.Study:
    """Search, or go on with a search, as one driver."""
    study = open_study(address, "search", sampler=MCTSSampler(seed=0))
    untold = recover_trials(study, owner)
    driver = make_driver(study, trials=trials, scales=StudyFacts(study).reward_scales, owner=owner)
    for record in untold:
        driver.recover(record)
    run(driver, evaluator)
    return study


def at_job(number: int, act) -> FakeEvaluator:
    """Return an evaluator that acts when it gets its n-th job."""
    evaluator = FakeEvaluator()

    def fail(job):
        if len(evaluator.jobs) == number:
            act()
        return None

    evaluator.fail = fail
    return evaluator


def search_together(addresses: dict[str, str], evaluators: list[FakeEvaluator], trials: int) -> None:
    """Search as several drivers at once; owner -> address."""
    with ThreadPoolExecutor(len(addresses)) as pool:
        drivers = [
            pool.submit(search, address, evaluator, trials=trials, owner=owner)
            for (owner, address), evaluator in zip(addresses.items(), evaluators)
        ]
        for driver in drivers:
            driver.result(timeout=300)


def require_whole(address: str, evaluators: list[FakeEvaluator], trials: int) -> None:
    """Nothing was lost, and nothing was trained or counted twice."""
    study = open_existing(address, "search")
    jobs = [job.id for evaluator in evaluators for job in evaluator.jobs]
    assert len(jobs) == len(set(jobs)) == trials
    assert all(evaluator.jobs for evaluator in evaluators), "every driver took part"
    # A trial that was suggested twice takes the other's result, and is no part of the budget.
    assert {trial.state for trial in study.trials} <= {TrialState.COMPLETE, TrialState.WAITING}
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    evaluated = [trial for trial in complete if read_record(trial).reused_from is None]
    assert len(evaluated) == trials


def test_two_drivers_go_on_while_their_server_is_killed_and_started_again(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    address = server.new_database()
    restarts: list[threading.Thread] = []

    def kill() -> None:
        server.kill()
        restarts.append(threading.Thread(target=server.start))
        restarts[-1].start()

    evaluators = [at_job(4, kill), FakeEvaluator()]
    with caplog.at_level(logging.WARNING):
        search_together({"a": address, "b": address}, evaluators, trials=14)
    restarts[0].join()
    assert "the database does not answer; it is tried again" in caplog.text
    assert server.password not in caplog.text
    require_whole(address, evaluators, 14)


def test_drivers_may_open_an_empty_database_at_one_moment(server: PostgresServer) -> None:
    address = server.new_database()
    at_once = threading.Barrier(4)

    def opened() -> str:
        at_once.wait()
        return open_study(address, "search").study_name

    with ThreadPoolExecutor(4) as pool:
        assert {future.result(timeout=120) for future in [pool.submit(opened) for _ in range(4)]} == {"search"}


def test_a_search_goes_on_in_a_restored_copy_as_the_uninterrupted_one(server: PostgresServer) -> None:
    whole = search(server.new_database(), FakeEvaluator(), trials=9)
    address, copy = server.new_database(), server.new_database()

    def die() -> None:
        raise Killed

    first, second = at_job(5, die), FakeEvaluator()
    with pytest.raises(Killed):
        search(address, first, trials=9)
    server.copy(address, copy)
    restored = search(copy, second, trials=9)
    assert [(t.number, t.state, t.params, t.value) for t in restored.trials] == [
        (t.number, t.state, t.params, t.value) for t in whole.trials
    ]
    assert {job.id for job in first.jobs} & {job.id for job in second.jobs} == {first.jobs[-1].id}


class Proxy:
    """Optuna's gRPC proxy, which can be stopped and started again on its port."""

    def __init__(self, address: str) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.port = unused.getsockname()[1]
        self._storage = optuna.storages.get_storage(
            optuna.storages.RDBStorage(address, engine_kwargs={"pool_pre_ping": True})
        )

    def start(self) -> None:
        # What ``run_grpc_proxy_server`` serves, which never returns.
        from optuna.storages._grpc.server import make_server

        self._threads = ThreadPoolExecutor(4)
        self._server = make_server(self._storage, "127.0.0.1", self.port, self._threads)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._threads.shutdown(wait=False, cancel_futures=True)


def test_drivers_behind_a_grpc_proxy_bear_restarts_of_the_proxy_and_of_the_server(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("grpc")
    address = server.new_database()
    proxy = Proxy(address)
    proxy.start()
    through = f"grpc://127.0.0.1:{proxy.port}"

    def restart_proxy() -> None:
        proxy.stop()
        threading.Timer(0.5, proxy.start).start()

    def restart_server() -> None:
        server.kill()
        threading.Timer(0.2, server.start).start()

    evaluators = [at_job(3, restart_proxy), at_job(3, restart_server)]
    try:
        with caplog.at_level(logging.WARNING):
            search_together({"a": through, "b": through}, evaluators, trials=14)
        assert open_existing(through).study_name == "search"
    finally:
        proxy.stop()
    assert "the database does not answer; it is tried again" in caplog.text
    require_whole(address, evaluators, 14)


def test_a_proxy_that_is_not_there_or_given_a_password_is_told_with_the_remedy(monkeypatch) -> None:
    monkeypatch.setattr("autokd.storage.grpc_proxy._ANSWER_S", 0.2)
    with pytest.raises(StorageError, match="no gRPC proxy of Optuna's has answered"):
        open_study("grpc://127.0.0.1:9", "search")
    with pytest.raises(StorageError, match="a host and a port alone") as caught:
        open_study("grpc://user:hunter2@127.0.0.1:9/db", "search")
    assert "hunter2" not in str(caught.value)


def test_a_wrong_password_is_refused_without_being_shown_and_the_environment_may_have_the_right_one(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.new_database()
    with_password = address.replace("@", f":{server.password}@", 1)
    monkeypatch.setenv("PGPASSFILE", "/dev/null")
    with pytest.raises(StorageError, match="cannot be opened"):
        open_study(address, "search")
    with pytest.raises(StorageError, match="password authentication failed") as caught:
        open_study(address.replace("@", ":hunter2@", 1), "search")
    assert "hunter2" not in str(caught.value)
    monkeypatch.setenv("AUTOKD_STORAGE", with_password)
    chosen = chosen_storage(None)
    assert chosen is not None
    assert open_study(chosen, "search").trials == []
    with pytest.raises(StorageError, match="AUTOKD_STORAGE") as caught:
        chosen_storage(with_password)
    assert server.password not in str(caught.value)
