"""The shell around a run: home folders, brackets, narrow and Latin-1 terminals, quiet runs."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from autokd import api
from autokd.cli.app import main
from autokd.cli.live import LineView, PanelView, live_view
from autokd.cli.options import with_home
from autokd.cli.progress import counting
from autokd.cli.terminal import console, replace_what_cannot_be_shown
from autokd.config import load_config
from autokd.errors import ConfigError
from autokd.report.tables import entries_table
from autokd.study import Observer, TrialNews
from tests.support.report_samples import make_entries

NEWS = TrialNews(3, "40 x l2(standardize(F)) – a long formula ± its spread", "finished", 1.25, 1.25, 2.0, 4, 60)


def latin(columns: int, *, is_terminal: bool) -> tuple[Console, io.BytesIO]:
    """A console of a terminal or a pipe that knows Latin-1 alone, as the command line prepares it."""
    content = io.BytesIO()
    stream = io.TextIOWrapper(content, encoding="latin-1", errors="replace", write_through=True)
    return Console(file=stream, width=columns, force_terminal=is_terminal, legacy_windows=False), content


def show(view: Observer) -> None:
    view.stage("teacher", 1, 2, {"val AP": 0.5})
    view.trial_ended(NEWS)
    view.say("space: 432 distinct distillers – [brackets] stay")


def test_home_folders_are_expanded_as_the_shell_would(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert with_home("--run-dir=~/kd") == "--run-dir=/home/me/kd"
    assert with_home("~/kd.yaml") == "/home/me/kd.yaml"
    assert with_home("--run-dir=a~b/~") == "--run-dir=a~b/~"
    assert with_home("4~5") == "4~5"
    config = load_config("data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n")
    assert api.run_directory(config, "~/kd") == Path("/home/me/kd")
    assert api.cache_directory("~/cache") == Path("/home/me/cache")


def test_the_command_line_expands_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "home" / "runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["autokd", "runs", "~/runs"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)
    assert f"no run directory in {tmp_path / 'home' / 'runs'}" in capsys.readouterr().out
    assert not (tmp_path / "~").exists()


def test_streams_replace_what_their_encoding_lacks(monkeypatch: pytest.MonkeyPatch):
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="latin-1", write_through=True))
    replace_what_cannot_be_shown()
    console().print(entries_table(make_entries(), winner="searched"))
    text = content.getvalue().decode("latin-1")
    assert "±" in text, "what the encoding has is shown"
    assert "searched *" in text


@pytest.mark.parametrize("columns", [12, 40, 200])
@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_right_on_a_narrow_latin_1_stream(columns: int, is_terminal: bool):
    stream, content = latin(columns, is_terminal=is_terminal)
    if is_terminal:
        view = PanelView(stream)
        show(view)
        stream.print(view)
    else:
        show(LineView(stream))
    text = content.getvalue().decode("latin-1")
    flat = "".join(text.split())
    assert "[brackets]" in flat
    assert "40xl2(standardize(F))" in flat or columns == 12
    if is_terminal:
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
        assert all(len(line) <= columns for line in shown.splitlines())


def test_a_pipe_gets_whole_lines_and_no_control_characters():
    stream, content = latin(20, is_terminal=False)
    show(LineView(stream))
    text = content.getvalue().decode("latin-1")
    assert "\x1b" not in text
    assert len(text.splitlines()) == 3, "a line an event, however narrow"


def test_a_quiet_run_says_nothing(capsys: pytest.CaptureFixture[str]):
    with live_view(is_quiet=True) as view:
        show(view)
    with counting("images", is_quiet=True) as count:
        count(1, 2)
    with counting("images") as count:
        count(1, 2)  # no terminal, and ten seconds have not passed
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_an_empty_section_is_one_with_its_defaults():
    text = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n"
    sections = "runtime:\nsearch:\n  # trials: 3\nproxy:\nfull:\nspace:\n"
    assert load_config(text + sections) == load_config(text)
    with pytest.raises(ConfigError, match=r"student: .*empty.*[Ww]rite"):
        load_config(text.replace("student: {}", "student:"))


def test_one_number_for_the_image_size_is_told_what_to_write():
    text = "data: {format: shapes, image_size_px: 96}\nteacher: {train: {}}\nstudent: {}\n"
    with pytest.raises(ConfigError, match=r"image_size_px: found 96\. Write height and width"):
        load_config(text)


def test_ray_that_gives_up_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch):
    ray = pytest.importorskip("ray")
    from autokd.errors import RuntimeUnavailableError
    from autokd.runtime.ray.session import RaySession

    def give_up(*args: object, **options: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", give_up)
    session = RaySession(None, 1)
    with pytest.raises(RuntimeUnavailableError, match=r"timed out(.|\n)*workers: 0"):
        session._start()
