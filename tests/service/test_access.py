"""Who may do what: tokens, roles, limits, allowed folders, no code; and the log of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service needs autokd[service]")

from autokd.errors import AutoKDError, ConfigError
from autokd.service.rates import RateLimit
from autokd.service.settings import Limits, ServiceSettings
from autokd.service.submissions import check_submission, overridden
from tests.support.service_fakes import CONFIG, ServiceBed, make_bed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceBed]:
    bed = make_bed(tmp_path_factory.mktemp("access") / "service")
    yield bed
    bed.service.close()


def test_without_a_token_nothing_is_told(bed: ServiceBed) -> None:
    for path in ("/", "/api/v1/searches", "/api/v1/openapi.json", "/docs", "/runs/x", "/optuna/x/dashboard"):
        assert bed.client.get(path).status_code == 401, path
    assert bed.client.get("/api/v1/health").json() == {"status": "ok"}
    for wrong in ("akd_x", bed.tokens["ann"][:-1], bed.tokens["ann"] + "x", ""):
        answer = bed.client.get("/api/v1/searches", headers={"Authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401, wrong
    page = bed.client.get("/runs/x", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["location"]) == (303, "/login?next=/runs/x")


def test_tokens_are_stored_as_digests_and_end_when_they_are_revoked(bed: ServiceBed) -> None:
    text = bed.service.tokens.create("tmp", "read")
    with sqlite3.connect(bed.service.settings.folder / "service.db") as connection:
        stored = "\n".join(connection.iterdump())
    assert "tmp" in stored
    assert text not in stored
    assert text.removeprefix("akd_") not in stored
    assert bed.service.tokens.user_of(text) is not None
    bed.service.tokens.revoke("tmp")
    assert bed.service.tokens.user_of(text) is None
    for name, role in (("tmp", "read"), ("a b", "read"), ("ok", "boss")):
        with pytest.raises(AutoKDError):
            bed.service.tokens.create(name, role)


def test_roles_and_owners_decide_who_may_change_a_search(bed: ServiceBed) -> None:
    body = {"config": CONFIG}
    assert bed.ask("eve", "POST", "searches", json=body).status_code == 403
    search = bed.submit("ann")
    changes: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("POST", f"searches/{search}/stop", {}),
        ("PATCH", f"searches/{search}", {"json": {"trials": 3}}),
        ("DELETE", f"searches/{search}", {}),
    )
    for user in ("eve", "bob"):
        for method, path, more in changes:
            assert bed.ask(user, method, path, **more).status_code == 403, (user, path)
    for user, method, path, more in (("ann", *changes[1]), ("root", *changes[0]), ("root", *changes[2])):
        assert bed.ask(user, method, path, **more).status_code < 300, path
    assert bed.ask("ann", "GET", "audit").status_code == 403
    lines = bed.ask("root", "GET", f"audit?search={search}").json()
    assert [(line["who"], line["action"]) for line in lines] == [
        ("root", "delete"), ("root", "stop"), ("ann", "budget"), ("ann", "submit"),
    ]  # fmt: skip


def test_a_refused_change_leaves_no_line_in_the_log(bed: ServiceBed) -> None:
    search = bed.submit("ann")
    before = len(bed.ask("root", "GET", "audit?limit=1000").json())
    bed.ask("bob", "POST", f"searches/{search}/stop")
    bed.ask("ann", "POST", f"searches/{search}/resume")
    assert len(bed.ask("root", "GET", "audit?limit=1000").json()) == before


def test_foreign_pages_and_foreign_names_are_refused(bed: ServiceBed) -> None:
    cookie = bed.client.get(f"/?token={bed.tokens['ann']}").headers["set-cookie"].split(";")[0]
    assert bed.client.get("/", headers={"Cookie": cookie}).status_code == 200
    search = bed.submit("ann")
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
        answer = bed.client.post(f"/runs/{search}/stop", headers={"Cookie": cookie, **headers})
        assert answer.status_code == 403, headers
    own = {"Cookie": cookie, "Origin": "http://127.0.0.1"}
    assert bed.client.post(f"/runs/{search}/stop", headers=own).status_code == 303
    assert bed.ask("ann", "GET", "searches", params={}).status_code == 200
    answer = bed.client.get("/api/v1/health", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    form = bed.client.get("/login").headers
    assert "frame-ancestors 'none'" in form["content-security-policy"]
    assert form.get_list("referrer-policy") == ["same-origin"], "or browsers would send forms with the origin null"


def test_the_way_in_by_a_form_leads_to_this_service_alone(bed: ServiceBed) -> None:
    form = {"token": bed.tokens["eve"], "next": "//evil.example/"}
    answer = bed.client.post("/login", data=form, headers={"Origin": "http://127.0.0.1"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/evil.example/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    answer = bed.client.post("/login", data={"token": "akd_no"}, headers={"Origin": "http://127.0.0.1"})
    assert answer.status_code == 401
    assert "not known" in answer.text


def test_rates_and_sizes_are_limited(tmp_path: Path) -> None:
    limits = Limits(body_bytes=2000, requests_per_s=0.01, burst=3, failures_per_min=2, open_searches=1)
    bed = make_bed(tmp_path / "service", limits)
    assert bed.ask("ann", "POST", "searches", json={"config": "x" * 3000}).status_code == 413
    chunks = (b"x" * 1000 for _ in range(4))
    answer = bed.client.post("/api/v1/searches", headers=bed.headers("ann"), content=chunks)
    assert answer.status_code == 413
    assert bed.ask("ann", "GET", "me").status_code == 200
    assert bed.ask("ann", "GET", "me").status_code == 200
    refused = bed.ask("ann", "GET", "me")
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    bed.submit("bob")
    assert bed.ask("bob", "POST", "searches", json={"config": CONFIG}).status_code == 409
    codes = [bed.client.get("/", headers={"Authorization": "Bearer no"}).status_code for _ in range(3)]
    assert codes == [401, 401, 429]
    bed.service.close()


def test_a_bucket_fills_again_with_time() -> None:
    now = [0.0]
    limit = RateLimit(2.0, 2, clock=lambda: now[0])
    assert [limit.wait_s("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limit.wait_s("b") == 0.0
    now[0] = 0.5
    assert limit.wait_s("a") == 0.0
    assert limit.is_empty("a")


# ------------------------------------------------------------------------------------------ config files


@pytest.fixture
def rules(tmp_path: Path) -> ServiceSettings:
    for folder in ("allowed", "other"):
        (tmp_path / folder / "images").mkdir(parents=True)
        for split in ("train", "val"):
            (tmp_path / folder / f"{split}.json").write_text("{}")
        (tmp_path / folder / "teacher.pth").write_bytes(b"")
    (tmp_path / "allowed" / "link").symlink_to(tmp_path / "other")
    return ServiceSettings(tmp_path / "service", roots=(tmp_path / "allowed",))


def coco(root: Path, **data: str) -> str:
    lines = "".join(f", {key}: {value}" for key, value in ({"train": "train.json", "val": "val.json"} | data).items())
    return CONFIG.replace(
        "data: {format: shapes, image_size_px: [64, 64], num_train: 8, num_val: 4, num_test: 4}",
        f"data: {{root: {root}{lines}}}",
    )


def test_a_file_below_an_allowed_folder_is_taken(rules: ServiceSettings) -> None:
    config = check_submission(coco(rules.roots[0]), {"search.trials": 9}, rules)
    assert config.search.trials == 9


@pytest.mark.parametrize(
    "text",
    [
        lambda root: coco(root.parent / "other"),
        lambda root: coco(root / ".." / "other"),
        lambda root: coco(root / "link"),
        lambda root: coco(root, train="../other/train.json"),
        lambda root: coco(root, images="link/images"),
        lambda root: coco(Path("relative")),
        lambda root: coco(Path("~/x")),
        lambda root: coco(Path("$HOME")),
        lambda root: coco(root).replace("train: {epochs: 1}", f"checkpoint: {root}/link/teacher.pth"),
        lambda root: CONFIG + f"full: {{baselines: [none, {root.parent}/other/x.yaml]}}\n",
        lambda root: CONFIG.replace("{trials: 4}", "{trials: 4, enqueue: [../other/x.yaml]}"),
    ],
)
def test_what_lies_outside_of_the_allowed_folders_is_refused(rules: ServiceSettings, text: Any) -> None:
    with pytest.raises(ConfigError, match=r"outside the folders|relative path|variable or a home"):
        check_submission(text(rules.roots[0]), {}, rules)


def test_a_refusal_says_nothing_about_other_folders(rules: ServiceSettings) -> None:
    """Whether a file outside exists must not show in the message."""
    said = set()
    for name in ("other", "absent"):
        with pytest.raises(ConfigError) as caught:
            check_submission(coco(rules.roots[0].parent / name), {}, rules)
        said.add(str(caught.value).replace(name, "NAME"))
    assert len(said) == 1


def test_the_data_file_of_a_yolo_set_cannot_lead_elsewhere(rules: ServiceSettings) -> None:
    root = rules.roots[0]
    (root / "data.yaml").write_text("path: ../other\ntrain: images\nval: images\nnames: [a]\n")
    data = f"data: {{format: yolo, root: {root}}}"
    text = CONFIG.replace(CONFIG.splitlines()[1], data)
    with pytest.raises(ConfigError, match="outside the folders"):
        check_submission(text, {}, rules)


def test_configs_of_mmdetection_are_code_and_need_the_operators_consent(rules: ServiceSettings) -> None:
    text = CONFIG.replace(
        "student: {architecture: fcos,", f"student: {{framework: mmdet, config: {rules.roots[0]}/x.py}}\nx: {{"
    )
    with pytest.raises(ConfigError, match="is code"):
        check_submission(text, {}, rules)
    with pytest.raises(ConfigError, match="is code"):
        check_submission(CONFIG, {"student": {"config": "/x.py"}}, rules)


def test_a_model_of_a_hub_is_no_path_and_its_keys_are_no_code(rules: ServiceSettings) -> None:
    student = "{framework: transformers, name: PekingU/rtdetr_v2_r18vd, config: {decoder_layers: 3}}"
    text = "\n".join(f"student: {student}" if line.startswith("student") else line for line in CONFIG.splitlines())
    assert check_submission(text + "\n", {}, rules).student.framework == "transformers"


def test_overrides_replace_values_and_make_sections() -> None:
    data = {"search": {"trials": 4}}
    assert overridden(data, {"search.trials": 5, "full.epochs": 2}) == {"search": {"trials": 5}, "full": {"epochs": 2}}
    assert data == {"search": {"trials": 4}}
    with pytest.raises(ConfigError, match="no section"):
        overridden(data, {"search.trials.x": 1})


def test_paths_hidden_in_overrides_are_checked_too(rules: ServiceSettings) -> None:
    with pytest.raises(ConfigError, match="outside the folders"):
        check_submission(CONFIG, {"teacher.checkpoint": str(rules.roots[0] / "link" / "teacher.pth")}, rules)
