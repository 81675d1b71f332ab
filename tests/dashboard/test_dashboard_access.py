"""The dashboard answers whoever has its token, its own pages, and by default only to read."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from autokd.storage import open_study
from autokd_dashboard import DashboardServer
from autokd_dashboard.access import is_loopback

Headers = dict[str, str]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    study = open_study(folder / "study.db", "small")
    study.tell(study.ask(), 1.0)
    return folder


@pytest.fixture(scope="module")
def server(run_dir: Path) -> Iterator[DashboardServer]:
    with DashboardServer(run_dir, port=0) as server:
        yield server


def ask(
    server: DashboardServer, method: str = "GET", path: str = "/api/studies", **headers: str
) -> http.client.HTTPResponse:
    """Send a request with exactly these headers, and Host unless it is among them; underscores stand for hyphens."""
    place = server.address.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(place, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": place} | headers).items():
        if value:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def bearer(server: DashboardServer) -> str:
    return f"Bearer {server.token}"


def cookie(server: DashboardServer) -> str:
    """Return the cookie that the printed address gives to a browser."""
    given = ask(server, path=f"/?token={server.token}").getheader("Set-Cookie")
    assert given is not None
    return given.split(";")[0]


def test_without_the_token_nothing_is_answered(server: DashboardServer) -> None:
    for path in ("/", "/dashboard", "/api/studies", "/api/meta", "/static/bundle.js", "/favicon.ico", "/nowhere"):
        assert ask(server, path=path).status == 403, path
    for wrong in ("Bearer ", "Bearer x", f"Basic {server.token}", server.token, f"Bearer {server.token}x"):
        assert ask(server, Authorization=wrong).status == 403, wrong
    assert ask(server, path=f"/api/studies?token={server.token[:-1]}").status == 403
    assert ask(server, Cookie="autokd-dashboard-1=x").status == 403
    assert ask(server, Cookie="=;;\x7f").status == 403


def test_the_printed_address_lets_a_browser_in_and_the_token_leaves_the_address(server: DashboardServer) -> None:
    response = ask(server, path=f"/dashboard?token={server.token}&page=2")
    assert response.status == 303
    assert response.getheader("Location") == "/dashboard?page=2"
    given = response.getheader("Set-Cookie", "")
    assert "HttpOnly" in given
    assert "SameSite=Lax" in given
    assert ask(server, Cookie=given.split(";")[0]).status == 200
    assert ask(server, Authorization=bearer(server)).status == 200


def test_the_way_in_does_not_lead_to_another_server(server: DashboardServer) -> None:
    for path in ("//evil.example/", "/%5cevil.example", "/%0d%0aSet-Cookie:x=y"):
        place = ask(server, path=f"{path}?token={server.token}").getheader("Location", "")
        assert place.startswith("/")
        assert not place.startswith(("//", "/\\"))
        assert "\r" not in place


def test_tokens_are_long_and_differ(run_dir: Path, server: DashboardServer) -> None:
    other = DashboardServer(run_dir, port=0)
    with other:
        assert len(server.token) >= 43  # 256 bits in base64
        assert other.token != server.token
        assert ask(other, Authorization=bearer(server)).status == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:9000", 200),  # ssh -L 9000:localhost:8080
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("", 403),
        ("evil.example", 403),
        ("evil.example:80", 403),
        ("[localhost]x", 403),
        ("[localhost]", 403),
        ("localhost:", 403),
        ("localhost:80x", 403),
        ("localhost.evil.example", 403),
        ("localhost@evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.2", 403),
        ("192.168.0.1:80", 403),
    ],
)
def test_only_its_own_address_is_answered_exactly(server: DashboardServer, host: str, status: int) -> None:
    assert ask(server, Host=host, Authorization=bearer(server)).status == status


@pytest.mark.parametrize("path", ["/api/studies", "/dashboard", "/nowhere", "/"])
@pytest.mark.parametrize("with_token", [True, False])
def test_no_page_may_frame_it(server: DashboardServer, path: str, with_token: bool) -> None:
    headers = {"Authorization": bearer(server)} if with_token else {}
    response = ask(server, path=path, **headers)
    assert response.getheader("X-Frame-Options") == "DENY"
    assert response.getheader("Content-Security-Policy") == "frame-ancestors 'none'"
    assert response.getheader("Referrer-Policy") == "no-referrer"
    assert response.getheader("X-Content-Type-Options") == "nosniff"


def test_studies_are_only_read_unless_it_is_asked_for(run_dir: Path, server: DashboardServer) -> None:
    for method in ("DELETE", "POST", "PUT", "PATCH", "MKCOL"):
        response = ask(server, method, "/api/studies/1", Authorization=bearer(server))
        assert response.status == 403, method
    assert optuna.get_all_study_names(f"sqlite:///{run_dir}/study.db") == ["small"]


def test_writing_takes_the_token_and_the_same_origin(tmp_path: Path) -> None:
    open_study(tmp_path / "study.db", "small")
    with DashboardServer(tmp_path, port=0, may_write=True) as server:
        place = server.address.rstrip("/")
        own = cookie(server)
        refused: list[Headers] = [
            {},
            {"Origin": place},
            {"Cookie": own},  # an old browser's form of a foreign page: no Origin
            {"Cookie": own, "Origin": "http://evil.example"},
            {"Cookie": own, "Origin": "null"},
            {"Cookie": own, "Origin": "http://127.0.0.1:1"},
            {"Cookie": own, "Origin": f"{place}.evil.example"},
            {"Cookie": own, "Sec_Fetch_Site": "cross-site"},
            {"Cookie": own, "Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "navigate"},
            {"Cookie": own, "Origin": place, "Host": "evil.example"},
            {"Authorization": bearer(server), "Origin": "http://evil.example"},
        ]
        for headers in refused:
            assert ask(server, "DELETE", "/api/studies/1", **headers).status == 403, headers
        assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/study.db") == ["small"]
        assert ask(server, "DELETE", "/api/studies/1", Cookie=own, Origin=place).status == 204
        assert optuna.get_all_study_names(f"sqlite:///{tmp_path}/study.db") == []


def test_pages_elsewhere_may_link_to_it_and_no_more(server: DashboardServer) -> None:
    own = cookie(server)
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask(server, path="/dashboard", Cookie=own, **link).status == 200
    for mode in ("no-cors", "cors", "websocket"):
        assert ask(server, Cookie=own, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode=mode).status == 403
    assert ask(server, Cookie=own, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors").status == 200


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("localhost", True), ("127.0.0.1", True), ("::1", True), ("127.8.9.1", True), ("evil.example", False),
     ("0.0.0.0", False), ("192.168.0.1", False)],
)  # fmt: skip
def test_loopback_hosts_are_told_apart(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
