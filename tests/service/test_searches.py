"""Submit, stop, resume, change, delete: states follow jobs, whatever is restarted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the service needs autokd[service]")

from autokd.service.database import Search
from autokd.service.reconcile import MAX_LOSSES
from autokd.service.settings import Limits
from tests.support.service_fakes import CONFIG, FakeBackend, ServiceBed, make_bed


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[ServiceBed]:
    bed = make_bed(tmp_path / "service")
    yield bed
    bed.service.close()


def test_a_search_is_queued_runs_and_finishes(bed: ServiceBed) -> None:
    search = bed.submit("ann", **{"search.trials": 7})
    assert bed.state(search) == "queued"
    bed.step()
    assert bed.state(search) == "running"
    request = bed.backend.requests[bed.job(search)]
    assert request.arguments[request.arguments.index("--trials") + 1] == "7"
    assert "--resume" not in request.arguments
    assert (request.working_dir / "config.yaml").read_text().count("trials: 7") == 1
    bed.backend.end(bed.job(search))
    bed.step()
    found = bed.ask("eve", "GET", f"searches/{search}").json()
    assert (found["state"], found["winner"], found["owner"]) == ("finished", "searched", "ann")
    assert found["winner_ap"] == pytest.approx(0.4)
    assert found["none_ap"] == pytest.approx(0.25)


def test_a_stopped_search_is_resumed_in_its_folder(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.step()
    bed.backend.begin(bed.job(search))
    assert bed.ask("ann", "POST", f"searches/{search}/stop").json()["state"] == "stopping"
    bed.step(2)
    assert bed.state(search) == "stopped"
    assert bed.ask("ann", "POST", f"searches/{search}/stop").status_code == 409
    assert bed.ask("ann", "POST", f"searches/{search}/resume").json()["state"] == "queued"
    bed.step()
    assert bed.state(search) == "running"
    assert bed.job(search).endswith("-2")
    assert "--resume" in bed.backend.requests[bed.job(search)].arguments


def test_a_failed_search_says_why(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.step()
    bed.backend.logs[bed.job(search)] = "warning\nautokd: the student cannot be trained.\nLower the rate.\n"
    bed.backend.end(bed.job(search), "failed", "exit code 2")
    bed.step()
    found = bed.ask("ann", "GET", f"searches/{search}").json()
    assert found["state"] == "failed"
    assert found["message"] == "autokd: the student cannot be trained.\nLower the rate."


def test_more_budget_stops_the_job_and_goes_on_with_it(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.step()
    bed.backend.begin(bed.job(search))
    assert bed.ask("ann", "PATCH", f"searches/{search}", json={"trials": 9}).json()["trials"] == 9
    bed.step(3)
    assert bed.state(search) == "running"
    arguments = bed.backend.requests[bed.job(search)].arguments
    assert arguments[arguments.index("--trials") + 1] == "9"
    assert "--resume" in arguments
    bed.backend.end(bed.job(search))
    bed.step()
    assert bed.state(search) == "finished"
    bed.ask("ann", "PATCH", f"searches/{search}", json={"trials": 20})
    bed.step()
    assert bed.state(search) == "running"
    assert bed.job(search).endswith("-3")


def test_deleting_ends_the_job_and_removes_the_folder(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.step()
    job = bed.job(search)
    bed.backend.begin(job)
    folder = bed.backend.run_dir(job)
    assert bed.ask("ann", "DELETE", f"searches/{search}").status_code == 204
    assert bed.ask("ann", "GET", f"searches/{search}").status_code == 404
    bed.step(2)
    assert not folder.exists()
    assert not bed.service.settings.submission(search).exists()
    assert job not in bed.backend.jobs
    assert bed.ask("ann", "GET", "searches").json() == []


def test_a_service_that_starts_again_finds_its_jobs(tmp_path: Path) -> None:
    backend = FakeBackend()
    first = make_bed(tmp_path / "service", backend=backend)
    ends, goes_on, waits = first.submit(), first.submit(), None
    first.step()
    ends_job, goes_on_job = first.job(ends), first.job(goes_on)
    waits = first.submit()
    first.service.close()
    backend.end(ends_job)
    second = make_bed(tmp_path / "service", backend=backend)
    second.step()
    assert [second.state(each) for each in (ends, goes_on, waits)] == ["finished", "running", "running"]
    assert second.job(goes_on) == goes_on_job
    second.service.close()


def test_a_service_that_died_between_submission_and_commit_submits_once(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.service.reconciler._store = lambda search, changed: None  # type: ignore[method-assign]
    bed.step()
    del bed.service.reconciler._store
    assert bed.state(search) == "queued"
    bed.step()
    assert bed.state(search) == "running"
    assert list(bed.backend.requests) == [f"autokd-{search}-1"]


def test_a_cluster_that_lost_its_jobs_gets_them_again_and_no_state_is_wrong_for_long(bed: ServiceBed) -> None:
    running, ended = bed.submit(), bed.submit()
    bed.step()
    bed.backend.begin(bed.job(running))
    bed.backend.end(bed.job(ended))  # before the service looked
    bed.backend.is_down = True
    with pytest.raises(Exception, match="down"):
        bed.step()
    assert bed.state(running) == "running"
    bed.backend.is_down = False
    bed.backend.lose_everything()
    bed.step(2)
    assert bed.state(ended) == "finished"
    assert bed.state(running) == "running"
    assert bed.job(running).endswith("-2")
    assert "--resume" in bed.backend.requests[bed.job(running)].arguments


def test_a_search_that_kills_its_cluster_is_not_tried_for_ever(bed: ServiceBed) -> None:
    search = bed.submit()
    for _ in range(MAX_LOSSES + 1):
        bed.step()
        assert bed.state(search) == "running"
        bed.backend.lose_everything()
        bed.step()
    assert bed.state(search) == "failed"
    assert "lost" in bed.service.searches.get(search).message


def test_further_searches_wait_for_room(tmp_path: Path) -> None:
    bed = make_bed(tmp_path / "service", Limits(running=2))
    searches = [bed.submit() for _ in range(3)]
    bed.step()
    assert sorted(bed.state(each) for each in searches) == ["queued", "running", "running"]
    running = next(each for each in searches if bed.state(each) == "running")
    bed.backend.end(bed.job(running))
    bed.step(2)
    assert sorted(bed.state(each) for each in searches) == ["finished", "running", "running"]
    bed.service.close()


def test_a_stop_during_the_pass_that_submits_is_not_lost(bed: ServiceBed) -> None:
    search = bed.submit()
    submit = bed.backend.submit

    def submit_slowly(request: object) -> None:
        submit(request)
        bed.ask("ann", "POST", f"searches/{search}/stop")

    bed.backend.submit = submit_slowly
    bed.step()
    bed.backend.submit = submit
    bed.step(3)
    assert bed.state(search) == "stopped"
    assert set(bed.backend.statuses()) == {f"autokd-{search}-1"}
    assert bed.backend.jobs[f"autokd-{search}-1"].state == "stopped"


def test_logs_of_all_jobs_are_kept(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.step()
    bed.backend.logs[bed.job(search)] += "first\n"
    bed.ask("ann", "POST", f"searches/{search}/stop")
    bed.step(2)
    bed.ask("ann", "POST", f"searches/{search}/resume")
    bed.step()
    bed.backend.logs[bed.job(search)] += "second\n"
    text = bed.ask("eve", "GET", f"searches/{search}/logs").text
    assert text.index("first") < text.index("second")
    bed.backend.lose_everything()
    bed.backend.logs.clear()
    assert "first" in bed.ask("eve", "GET", f"searches/{search}/logs").text


def test_followed_logs_end_with_the_search(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.step()
    bed.backend.end(bed.job(search))
    bed.step()
    with bed.client.stream("GET", f"/api/v1/searches/{search}/logs?follow=true", headers=bed.headers("eve")) as answer:
        assert "begins" in "".join(answer.iter_text())


def test_files_are_downloaded_by_kind(bed: ServiceBed) -> None:
    search = bed.submit()
    bed.step()
    assert bed.ask("eve", "GET", f"searches/{search}/files/student").status_code == 404
    bed.backend.end(bed.job(search))
    bed.step()
    answer = bed.ask("eve", "GET", f"searches/{search}/files/student")
    assert answer.content == b"weights"
    assert "attachment" in answer.headers["content-disposition"]
    assert set(bed.ask("eve", "GET", f"searches/{search}/files").json()) >= {"student", "distiller", "report"}
    assert bed.ask("eve", "GET", f"searches/{search}/results").json()["winner"] == "searched"
    assert bed.ask("eve", "GET", f"searches/{search}/files/..%2Fservice.db").status_code == 404


def test_a_link_in_a_run_directory_is_not_followed(bed: ServiceBed, tmp_path: Path) -> None:
    search = bed.submit()
    bed.step()
    bed.backend.end(bed.job(search))
    (tmp_path / "secret").write_text("secret")
    path = bed.backend.run_dir(bed.job(search)) / "student.pt"
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    assert bed.ask("eve", "GET", f"searches/{search}/files/student").status_code == 404


def test_two_to_four_searches_are_compared(bed: ServiceBed) -> None:
    searches = [bed.submit(), bed.submit()]
    bed.step()
    bed.backend.end(bed.job(searches[0]))
    bed.step()
    found = bed.ask("eve", "GET", f"compare?ids={','.join(searches)}").json()
    assert [each["id"] for each in found] == searches
    assert found[0]["entries"][1]["test_ap"] == [0.35, 0.45]
    assert found[1]["entries"] == []
    assert bed.ask("eve", "GET", f"compare?ids={searches[0]}").status_code == 422


def test_lists_are_filtered(bed: ServiceBed) -> None:
    mine = bed.submit("ann", CONFIG.replace("small", "first_one"))
    bed.submit("bob", CONFIG.replace("small", "second"))
    assert [each["name"] for each in bed.ask("eve", "GET", "searches").json()] == ["second", "first_one"]
    assert [each["id"] for each in bed.ask("eve", "GET", "searches?owner=ann").json()] == [mine]
    assert [each["id"] for each in bed.ask("eve", "GET", "searches?text=RST_").json()] == [mine]
    assert bed.ask("eve", "GET", "searches?text=%25").json() == []
    assert bed.ask("eve", "GET", "searches?state=running").json() == []


def test_ids_say_nothing_to_a_database_or_a_file_system(bed: ServiceBed) -> None:
    for bad in ("..", "a'--", "%00", "x" * 300):
        assert bed.ask("ann", "GET", f"searches/{bad}").status_code in (404, 422)
    assert Search.__tablename__ in str(Search.__table__)
