"""The pages of one run without a browser: every page, what changes, what is refused, Optuna's attributes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from autokd_dashboard.catalog import SingleRun
from autokd_dashboard.optuna_pages import readable, rewritten_bundle
from autokd_dashboard.site import Question, Site
from tests.support.big_run import add_trials, write_big_run
from tests.support.report_samples import make_trials


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SingleRun:
    folder = tmp_path_factory.mktemp("pages") / "big"
    write_big_run(folder, 60)
    return SingleRun(folder, price=2.0)


@pytest.fixture(scope="module")
def site() -> Site:
    return Site()


def page(site: Site, run: SingleRun, path: str, **query: str) -> str:
    answer = site.answer(Question(path, query=query), run)
    assert answer.status == 200, answer.body.decode()
    return answer.body.decode()


def test_every_page_says_what_it_is_for(site: Site, run: SingleRun) -> None:
    assert site.answer(Question("/"), run).headers["Location"] == "/runs/run"
    live = page(site, run, "/runs/run")
    assert all(words in live for words in ("Search curve", "The tree", "node-0:77", "after epoch", "finalist"))
    results = page(site, run, "/runs/run/results")
    assert all(words in results for words in ("searched", "95% interval", "Platelets", "image0.png", "student"))
    distiller = page(site, run, "/runs/run/trials/1")
    assert all(words in distiller for words in ("<math", "term 1", "schema: 2", "decisions that differ"))
    assert "<math" in page(site, run, "/runs/run/entries/pkd")
    assert "No distillation" in page(site, run, "/runs/run/entries/none")


def test_a_part_is_sent_again_only_if_it_changed(site: Site, tmp_path: Path) -> None:
    write_big_run(tmp_path / "run", 10, is_over=False)
    run = SingleRun(tmp_path / "run")
    first = site.answer(Question("/runs/run/parts/live"), run)
    again = Question("/runs/run/parts/live", query={"version": first.headers["X-Version"]})
    assert site.answer(again, run).status == 204
    data = json.loads(site.answer(Question("/runs/run/data/trials"), run).body)
    assert len(data["rows"]) == 10
    add_trials(tmp_path / "run" / "study.db", make_trials(12)[10:])
    assert site.answer(again, run).status == 200
    news = json.loads(site.answer(Question("/runs/run/data/trials", query={"since": str(data["version"])}), run).body)
    assert [row[0] for row in news["rows"]] == [10, 11]
    tree = json.loads(site.answer(Question("/runs/run/data/tree"), run).body)
    assert tree["nodes"][0]["visits"] == 12
    assert site.answer(Question("/runs/run/data/tree", query={"since": str(tree["version"])}), run).status == 204


def test_a_run_that_has_not_begun_has_its_page(site: Site, tmp_path: Path) -> None:
    assert "No stage has begun" in page(site, SingleRun(tmp_path), "/runs/run")


def test_what_is_not_there_is_refused(site: Site, run: SingleRun) -> None:
    for path in ("/nowhere", "/runs/other", "/runs/run/trials/999", "/runs/run/entries/x", "/static/../site.py",
                 "/runs/run/files/study", "/runs/run/heat_maps/x.png"):  # fmt: skip
        assert site.answer(Question(path), run).status == 404, path
    assert site.answer(Question("/runs/run/stop"), run).status == 405
    assert site.answer(Question("/runs/run/stop", "POST"), run).status == 409


def test_what_a_run_says_is_escaped(site: Site, tmp_path: Path) -> None:
    write_big_run(tmp_path / "run", 3, is_over=False)
    path = tmp_path / "run" / "progress.json"
    path.write_text(path.read_text().replace("teacher: val AP 0.401", "<script>alert(1)</script>"))
    text = page(site, SingleRun(tmp_path / "run"), "/runs/run")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text


def test_optunas_script_finds_its_prefix_in_its_address() -> None:
    text = gzip.decompress(rewritten_bundle()).decode()
    assert text.count('location.pathname.split("/dashboard")[0]') == 2


def test_optunas_attributes_are_few_and_readable() -> None:
    job = {"formula": "40 x l2(F)", "digest": "ab", "spec": "terms: []"}
    outcome = {"seconds": 3.25, "worker": "w:1", "metrics": {"cka": 0.5, "val_loss/cls": 1.0}, "curve": [[1, 2, {}]]}
    detail = {
        "user_attrs": [
            {"key": "autokd:outcome:full-ab-s0", "value": json.dumps(outcome)},
            {"key": "autokd:contents", "value": "{}"},
            {"key": "autokd:reward_scales", "value": json.dumps({"cka": 0.123456})},
        ],
        "trials": [{"user_attrs": [{"key": "autokd:job", "value": json.dumps(job)},
                                   {"key": "autokd:outcome", "value": json.dumps(outcome)}]}],
        "union_user_attrs": [{"key": "autokd:job", "sortable": False}],
    }  # fmt: skip
    found = readable(detail)
    assert found["user_attrs"] == [{"key": "scale of cka", "value": "0.1235"}]
    lines = {line["key"]: line["value"] for line in found["trials"][0]["user_attrs"]}
    assert lines == {"distiller": "40 x l2(F)", "digest": "ab", "seconds": "3.2", "worker": "w:1", "cka": "0.5"}
    assert {each["key"] for each in found["union_user_attrs"]} == set(lines)
