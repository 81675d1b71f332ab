"""The page: every section, no loads from elsewhere, escaped names, a size that can be mailed."""

from __future__ import annotations

import base64
import gzip
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from autokd.report.page import SECTIONS, render_report
from autokd.report.view import EntryView, ReportData, SearchView, TrialView
from autokd.storage import FinalistResult, ProxyFidelity, Race, RaceRound
from tests.support.report_samples import make_entries, make_images, make_report_data, make_trials


class Page(HTMLParser):
    """Sections, loads and visible words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.scripts: dict[str, str] = {}
        self._inside: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.append(values["id"])
        loading = ("src", "srcset", "data", "poster", "background", "action")
        self.loads += [values[name] for name in loading if name in values]
        if tag != "a" and "href" in values:
            self.loads.append(values["href"])
        if tag in ("script", "style"):
            self._inside.append((tag, values.get("id", "")))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)
        else:
            self.scripts[self._inside[-1][1] or self._inside[-1][0]] = data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(data: ReportData, folder: Path) -> Page:
    return Page(render_report(data, folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def full_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_report(make_report_data(), tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def full_page(full_path: Path) -> Page:
    return Page(full_path.read_text(encoding="utf-8"))


def test_the_page_has_every_section(full_page: Page) -> None:
    assert [name for name in full_page.ids if name in dict(SECTIONS)] == [name for name, _ in SECTIONS]
    for name in ("results", "curve", "tree", "finalists", "classes", "fidelity"):
        assert json.loads(full_page.scripts[f"figure-{name}"])["data"]
    assert "No images were drawn" not in full_page.text


def test_the_page_loads_nothing_from_elsewhere(full_page: Page) -> None:
    assert all(load.startswith("data:") for load in full_page.loads)
    assert "url(" not in full_page.scripts["style"]
    assert "@import" not in full_page.scripts["style"]
    for name in ("fetch(", "XMLHttpRequest", "import("):
        assert name not in full_page.scripts["script"]


def test_the_page_stays_below_four_megabytes_with_six_images(tmp_path: Path) -> None:
    path = render_report(replace(make_report_data(), images=make_images(6)), tmp_path / "report.html")
    assert path.stat().st_size < 4_000_000


def test_the_embedded_plotly_is_the_installed_one(full_page: Page) -> None:
    import plotly

    packed = base64.b64decode(full_page.scripts["plotly-gzip-base64"])
    assert gzip.decompress(packed) == (Path(plotly.__path__[0]) / "package_data" / "plotly.min.js").read_bytes()


def test_equal_runs_give_equal_pages(full_path: Path, tmp_path: Path) -> None:
    again = render_report(make_report_data(), tmp_path / "report.html")
    assert again.read_bytes() == full_path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_page_counts_causes_of_failure(full_page: Page) -> None:
    assert "non_finite 2 9, 17 the loss is nan in epoch 2" in full_page.text
    assert "timeout 1 23 stopped after 60 s" in full_page.text


def test_the_page_states_threshold_seeds_and_set_up(full_page: Page) -> None:
    assert "score of at least 0.3" in full_page.text
    assert "seeds 0, 1, 2, 3, 4;" in full_page.text
    assert "search: {sampler: mcts, trials: 40}" in full_page.text
    assert "torch 2.15.0" in full_page.text


def test_the_page_says_how_far_the_proxy_can_be_trusted(full_page: Page) -> None:
    assert "is +0.80, 95% interval [+0.05, +1.00], over 5 distillers" in full_page.text
    assert "a hint, not a measurement. The winner was selected by the proxy." in full_page.text


def test_the_page_lists_ap_by_size_of_objects_that_occur(full_page: Page) -> None:
    assert "small objects" in full_page.text
    assert "large objects" in full_page.text
    assert "medium objects" not in full_page.text


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    [none, *_, searched] = make_entries()
    data = replace(
        make_report_data(),
        name=evil,
        entries=(none, replace(searched, per_class={evil: (0.5, 0.6)}, yaml=evil), replace(none, name=evil)),
        trials=(TrialView(0, "failed", None, ((evil, evil),), evil, cause=evil, message=evil, preset=evil),),
        environment={evil: evil},
        config_yaml=evil,
        images=(replace(make_images(1)[0], caption=evil),),
        race=Race(
            finalists=(
                FinalistResult(digest=evil, formula=evil, seeds=(0,), rewards=(1.0,), mean=1.0, reason=evil, fell_in=1),
            ),
            rounds=(RaceRound(seed=1, leader=evil),),
            verdict=evil,
        ),
        proxy_fidelity=ProxyFidelity(note=evil),
    )
    text = render_report(data, tmp_path / "report.html").read_text(encoding="utf-8")
    assert evil not in text
    assert "<img src=x" not in text
    assert text.count("<script") == text.count("</script>") == 8
    assert evil in Page(text).text


@pytest.mark.parametrize("trials", [(), make_trials(3)[:0]], ids=["none", "empty"])
def test_a_run_without_trials_has_a_page(trials: tuple[TrialView, ...], tmp_path: Path) -> None:
    page = page_of(ReportData("new", trials=trials), tmp_path)
    assert "Nothing has been tried yet" in page.text
    assert "No full training has finished" in page.text


def test_a_run_without_full_trainings_speaks_of_its_best_trial(tmp_path: Path) -> None:
    trials = make_trials()
    best = max((t for t in trials if t.status == "finished"), key=lambda t: t.value or 0)
    page = page_of(ReportData("r", SearchView("mcts"), trials), tmp_path)
    assert f"The best of 40 trials is trial {best.number}, reward {best.value:.4g}" in page.text
    assert "the full trainings have not" in page.text


def test_a_run_in_which_every_trial_failed_has_a_page(tmp_path: Path) -> None:
    failed = tuple(TrialView(i, "failed", cause="out_of_memory") for i in range(5))
    page = page_of(ReportData("r", SearchView("mcts", failed=5), failed), tmp_path)
    assert "5 trials, 5 of them failed, none with a value." in page.text
    assert "out_of_memory 5 0, 1, 2, 3, 4" in page.text


def test_a_run_with_one_seed_states_no_interval(tmp_path: Path) -> None:
    entries = tuple(EntryView(name, (0,), (ap,), (ap,)) for name, ap in (("none", 0.30), ("searched", 0.40)))
    page = page_of(ReportData("r", entries=entries, winner="searched"), tmp_path)
    assert "one seed: no interval" in page.text
    assert "+0.1000 AP against no distillation; with one seed nothing can be said about its noise." in page.text
    assert "nan" not in page.text.lower().replace("non-finite", "")


def test_a_winner_that_is_a_preset_is_named_as_such(tmp_path: Path) -> None:
    page = page_of(replace(make_report_data(), winner="pkd"), tmp_path)
    assert "pkd won on val" in page.text


def test_the_report_is_imported_without_torch() -> None:
    heavy = "{'torch', 'torchvision', 'ray', 'plotly', 'jinja2', 'PIL', 'scipy'}"
    code = f"import sys, autokd.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_counts_of_the_search_stand_in_words(full_page: Page) -> None:
    trials = make_trials()
    counts = [sum(t.status == status for t in trials) for status in ("finished", "pruned", "failed", "running")]
    assert counts == [34, 2, 3, 1]
    assert "mcts: 40 trials; 34 finished, 2 pruned, 3 failed, 1 running or interrupted;" in full_page.text
    assert "1 of them took the value of an equal distiller, in 6 min 52 s." in full_page.text


def test_the_winner_of_the_race_is_shown_with_what_it_is_expected_to_be_worth(full_page: Page) -> None:
    assert "3 finalists, 2 rounds (5 proxy trainings): no seed was left" in full_page.text
    assert (
        "The winner's trial had the reward +1.250, which is biased upwards: it was selected by it; the mean over 3 "
        "seeds is +1.250; the reward expected with a new seed is +1.125 ± 0.250." in full_page.text
    )
    assert "Standard deviations: 0.250 for the noise of a reward, 0.750 between distillers." in full_page.text
    assert "00112233+cccccccc winner +1.250 +1.250 (3 seeds) +1.125 ± 0.250 never eliminated" in full_page.text
    assert "eliminated in round 1: 0.625 behind the leader" in full_page.text
    assert "1 1 3 00112233+cccccccc deadbeef 0.500 (3 df)" in full_page.text


def test_the_race_is_drawn_with_a_row_a_finalist_and_digests_stay_names(full_page: Page) -> None:
    figure = json.loads(full_page.scripts["figure-finalists"])
    assert figure["layout"]["yaxis"]["type"] == "category", "1e345678 is a number to plotly otherwise"
    dots = {trace["y"][0]: trace["x"] for trace in figure["data"] if len(trace["x"]) > 1}
    assert dots == {"00112233+cccccccc": [1.25, 1.0, 1.5], "1e345678": [1.5, 0.5, 1.0], "deadbeef": [1.0, 0.0]}
    diamonds = {trace["y"][0]: trace["x"] for trace in figure["data"] if len(trace["x"]) == 1}
    assert diamonds == {"00112233+cccccccc": [1.125], "1e345678": [0.875], "deadbeef": [0.5]}


def test_a_race_without_repeated_seeds_states_no_expectation(tmp_path: Path) -> None:
    race = Race(
        finalists=(FinalistResult(digest="ab", formula="40 x l2(F)", seeds=(0,), rewards=(2.0,), mean=2.0),),
        verdict="one finalist: no race",
    )
    page = page_of(ReportData("r", trials=make_trials(5), race=race), tmp_path)
    assert "1 finalist, 0 rounds (0 proxy trainings): one finalist: no race." in page.text
    assert "the noise of the reward is not known" in page.text
    assert "have not raced yet" in page_of(ReportData("r"), tmp_path).text


def test_an_interval_that_holds_zero_is_said_to(tmp_path: Path) -> None:
    data = replace(make_report_data(), proxy_fidelity=ProxyFidelity(kendall_tau=0.33, low=-0.4, high=0.8, pairs=4))
    assert "this run alone does not show that the proxy ranks distillers at all" in page_of(data, tmp_path).text
    data = replace(make_report_data(), proxy_fidelity=ProxyFidelity(pairs=2, note="2 distinct distillers."))
    assert "Too few distillers were judged both by the proxy and in full" in page_of(data, tmp_path).text
    assert "to compare their order. 2 distinct distillers." in page_of(data, tmp_path).text
