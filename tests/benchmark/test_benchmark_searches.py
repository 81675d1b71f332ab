"""Searches on a table: what counts as found, when, and at what regret; the yardstick sampler; the whole command."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import optuna
import pytest
from optuna.pruners import MedianPruner
from typer.testing import CliRunner

from autokd.benchmark import save_benchmark
from autokd.benchmark.simulation import SAMPLERS, Trace, Truth, cut_after, run_search
from autokd.benchmark.simulation.comparison import Plan, Settings, is_enough
from autokd.benchmark.simulation.evolution import RegularizedEvolutionSampler
from autokd.benchmark.simulation.measures import measure, ratios, summarize
from autokd.cli import app
from autokd.errors import BenchmarkError
from autokd.search import suggest
from experiments.distiller_benchmark import choosing, pruning
from tests.support.benchmark_samples import LARGE, SMALL, outcomes_of, synthetic, true_gain

PARTS = ("val_loss", "cka")


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.fixture(scope="module")
def small():
    return Truth(synthetic(SMALL), PARTS, top=0.1)


@pytest.fixture(scope="module")
def large():
    return Truth(synthetic(LARGE, seeds=(0,)), PARTS)


def searched(truth: Truth, name: str, seed: int, **settings: object) -> Trace:
    return run_search(truth, SAMPLERS[name](seed, truth.space), **settings)  # type: ignore[arg-type]


def test_the_truth_is_the_mean_gain_over_none_seed_by_seed(small):
    specs = [row.spec for row in small.benchmark]
    gains = [
        np.mean(
            [
                outcomes_of(spec, "full", seed, 4).metrics["val_ap"]
                - outcomes_of(None, "full", seed, 4).metrics["val_ap"]
                for seed in (0, 1)
            ]
        )
        for spec in specs
    ]
    assert small.score == pytest.approx(gains)
    assert small.num_top == 3
    assert small.top_score == set(np.argsort(gains)[-3:])


def test_the_reward_is_the_sum_of_standardized_gains_by_the_proxy(small):
    ends = [outcomes_of(row.spec, "proxy", 0, 2).metrics for row in small.benchmark]
    none = outcomes_of(None, "proxy", 0, 2).metrics
    expected = np.zeros(len(ends))
    for part, sign in (("val_loss", -1), ("cka", 1)):
        gains = np.array([0.0] + [sign * (m[part] - none[part]) for m in ends])
        expected += gains[1:] / gains.std(ddof=1)
    assert small.reward == pytest.approx(expected)


def test_one_worker_evaluates_every_spec_once_in_the_recorded_time(small):
    trace = searched(small, "random", 3, num_trials=24)
    assert sorted(trace.rows) == [*range(24)]
    rows = list(small.benchmark)
    seconds = np.cumsum([outcomes_of(rows[i].spec, "proxy", 0, 2).seconds for i in trace.rows])
    assert trace.seconds == pytest.approx(seconds)
    assert trace.busy_s == pytest.approx(seconds[-1])


def test_sixteen_workers_take_about_a_sixteenth_of_the_time(large):
    one, sixteen = (searched(large, "random", 0, num_trials=80, num_workers=w) for w in (1, 16))
    assert len(one.rows) == len(sixteen.rows) == 80
    assert 1 / 16 <= sixteen.seconds[-1] / one.seconds[-1] < 1 / 12
    assert sixteen.busy_s == pytest.approx(one.busy_s, rel=0.1)


@pytest.mark.parametrize("num_workers", [1, 4])
def test_a_search_that_ends_early_measures_what_the_whole_one_does(large, num_workers):
    settings = {"num_workers": num_workers, "num_trials": 200}
    whole = searched(large, "mcts", 3, **settings)
    ended = searched(large, "mcts", 3, **settings, is_enough=lambda trace: is_enough(trace, large))
    assert len(ended.rows) < len(whole.rows)
    regret_at = (20, 40, 80)
    assert measure(ended, large, 200, regret_at) == measure(whole, large, 200, regret_at)


def test_the_full_objective_shows_a_search_the_full_training(small):
    trace = searched(small, "random", 0, num_trials=24, objective="full")
    rows = list(small.benchmark)
    assert trace.busy_s == pytest.approx(sum(outcomes_of(r.spec, "full", 0, 4).seconds for r in rows))


def test_equal_seeds_give_equal_searches(large):
    traces = [searched(large, "mcts", seed, num_trials=20, num_workers=4) for seed in (5, 5, 6)]
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


def test_pruning_saves_virtual_time(large):
    whole = searched(large, "random", 0, num_trials=60)
    pruned = run_search(
        large, SAMPLERS["random"](0, large.space), num_trials=60, pruner=MedianPruner(n_startup_trials=5)
    )
    assert pruned.rows[:20] == whole.rows[:20], "the sampler looks at no values"
    assert pruned.busy_s == pytest.approx(pruned.seconds[-1])
    assert pruned.seconds[-1] < 0.9 * whole.seconds[-1]


def test_a_pruner_is_judged_against_the_same_search_without_one(tmp_path, capsys):
    save_benchmark(tmp_path / "table.jsonl.gz", synthetic(LARGE, seeds=(0,)))
    arguments = ["--table", str(tmp_path / "table.jsonl.gz"), "--output", str(tmp_path), "--sampler", "random"]
    arguments += ["--repeats", "3", "--workers", "1", "--trials", "40", "--processes", "1"]
    assert pruning.main(arguments) == 0
    assert "| 1 | median | " in capsys.readouterr().out
    report = json.loads((tmp_path / "pruning.json").read_text())
    rows = {row["pruner"]: row for row in report["rows"]}
    assert list(rows) == ["none", pruning.LAST_EPOCH, "median", "percentile", "halving", "hyperband"]
    none, median = rows["none"], rows["median"]
    assert (none["pruned"], none["hours_ratio"]["mean"], none["gain_difference"]["mean"]) == (0.0, 1.0, 0.0)
    assert 0.2 < median["pruned"] < 0.8, "random trials: of every other one the first epoch is worse than the median"
    assert median["hours"] / none["hours"] == pytest.approx(median["hours_ratio"]["mean"], rel=0.05)

    once = rows[pruning.LAST_EPOCH]
    assert once["gain"] == none["gain"]
    assert once["hours_ratio"]["mean"] == pytest.approx(0.9, abs=0.03), "a fifth of the first of two epochs"


def test_of_the_best_few_by_the_proxy_the_best_in_full_is_chosen(large, tmp_path, capsys):
    rows = [3, 5, 3, 80, 200, 7]
    ranked = sorted(set(rows), key=lambda row: -large.reward[row])
    val_ap = {row: large.rows[row].values("val_ap")[0] for row in ranked}
    assert choosing.chosen(rows, large, 1) == ranked[0]
    assert choosing.chosen(rows, large, 3) == max(ranked[:3], key=val_ap.__getitem__)
    assert choosing.chosen(rows, large, 99) == max(ranked, key=val_ap.__getitem__)
    save_benchmark(tmp_path / "table.jsonl.gz", synthetic(SMALL))
    arguments = ["--table", str(tmp_path / "table.jsonl.gz"), "--output", str(tmp_path), "--repeats", "3"]
    assert choosing.main([*arguments, "--trials", "8", "24", "--finalists", "1", "24"]) == 0
    assert "| 24 | " in capsys.readouterr().out
    report = json.loads((tmp_path / "choosing.json").read_text())
    best = max(synthetic(SMALL), key=lambda row: row.values("val_ap")[0])
    whole = report["rows"][-1]
    assert (whole["trials"], whole["finalists"]) == (24, 24)
    assert whole["gain"]["mean"] == pytest.approx(
        outcomes_of(best.spec, "full", 1, 4).metrics["test_ap"] - outcomes_of(None, "full", 1, 4).metrics["test_ap"],
        abs=1e-5,
    ), "all were trained in full: the best with seed 0, judged by seed 1"


def test_measuring_before_the_last_epoch_is_known_apart(large):
    outcome = large.rows[7].outcome("proxy", 0)
    first = outcome.reports[0]
    assert pruning.early_measuring_s(large, 7) == pytest.approx(first.seconds * 0.2)


def test_a_table_whose_proxies_are_cut_off_has_what_was_known_by_then(large):
    once = cut_after(large.benchmark, 1)
    for row in large.rows[:5]:
        whole, cut = row.outcome("proxy", 0), once.lookup(row.spec).outcome("proxy", 0)
        assert cut.metrics == whole.reports[0].metrics
        assert (cut.seconds, cut.reports) == (whole.reports[0].seconds, whole.reports[:1])
        assert once.lookup(row.spec).full == row.full
    assert Truth(once, PARTS).num_epochs == 1
    with pytest.raises(BenchmarkError, match="have 2 epochs, not 3"):
        cut_after(large.benchmark, 3)


def test_eighty_trials_of_a_cheap_sampler_take_well_under_a_second(large):
    took = []
    for seed in range(3):
        began = time.process_time()
        searched(large, "random", seed, num_trials=80)
        took.append(time.process_time() - began)
    assert min(took) < 0.8


@pytest.mark.slow
def test_samplers_that_learn_beat_chance_on_the_synthetic_table(large):
    """Mean true gain of trials 41 to 80; over four seeds the deviation of each mean is about 0.001."""
    gains = np.array([true_gain(row.spec) for row in large.benchmark])

    def late_gain(name: str) -> float:
        return float(np.mean([gains[searched(large, name, s, num_trials=80).rows[40:]] for s in range(4)]))

    chance = late_gain("random")
    assert late_gain("evolution") > chance + 0.003
    assert late_gain("mcts") > chance + 0.003


def test_measurements_of_a_trace_are_those_worked_out_by_hand():
    truth_like = type("Table", (), {})()
    truth_like.score = np.array([0.1, 0.5, 0.4, 0.2])
    truth_like.reward = np.array([1.0, 2.0, 4.0, 3.0])
    truth_like.top_score, truth_like.top_reward = {1}, {2}
    trace = Trace(rows=[0, 3, 1], seconds=[3600.0, 5400.0, 7200.0])
    row = measure(trace, truth_like, cap=50, regret_at=(1, 2, 4))
    assert (row["found_full"], row["trials_full"], row["hours_full"]) == (True, 3, 2.0)
    assert (row["found_reward"], row["trials_reward"], row["hours_reward"]) == (False, 50, 2.0)
    # The incumbent by reward: row 0, then 3, and still 3 when row 1, the best by score, has been seen.
    assert row["regret_full"] == pytest.approx([0.4, 0.3, 0.3])
    assert row["regret_reward"] == pytest.approx([3.0, 1.0, 1.0])
    assert row["curve"] == pytest.approx([0.4, 0.3, 0.3, 0.3])


def test_intervals_contain_the_statistic_and_ratios_name_the_best_other():
    summary = summarize([10, 20, 30, 40, 100])
    assert (summary["mean"], summary["median"]) == (40.0, 30.0)
    assert summary["median_95"][0] <= 30 <= summary["median_95"][1]
    medians = {"mcts": 10.0, "random": 50.0, "tpe": 20.0, "gp": 16.0}
    rows = [{"sampler": name, "workers": 1, "trials_full": {"median": m}, "repeats": 9} for name, m in medians.items()]
    rows.append({"sampler": "nsga2", "workers": 1, "trials_full": {"median": 2.0}, "repeats": 3})
    [ratio] = ratios(rows, "trials_full")
    assert (ratio["to_random"], ratio["to_best_other"], ratio["best_other"]) == (0.2, 0.625, "gp")


def test_a_partial_table_and_an_unrecorded_metric_are_refused():
    with pytest.raises(BenchmarkError, match="partial table"):
        Truth(synthetic(SMALL, leave_out=1), PARTS)
    with pytest.raises(BenchmarkError, match="no surprise was recorded"):
        Truth(synthetic(SMALL), ("val_loss", "surprise"))


def test_a_part_of_the_space_is_searched_and_judged_alone():
    table = synthetic(SMALL)
    truth = Truth(table, PARTS, only={"source": ("feature_map", "background")})
    inside = [row for row in table if row.spec.terms[0].source.name != "foreground"]
    assert len(truth.score) == len(inside) == 16
    best = max(inside, key=lambda row: sum(outcomes_of(row.spec, "full", s, 4).metrics["val_ap"] for s in (0, 1)))
    assert truth.top_score == {truth.index[best.digest]}
    trace = searched(truth, "mcts", 0, num_trials=24)
    assert sorted(trace.rows) == [*range(16)]
    with pytest.raises(BenchmarkError, match="only source=edge"):
        Truth(table, PARTS, only={"source": ("edge",)})


# ------------------------------------------------------------------------------ regularized evolution


def evolved(num_trials: int, seed: int = 0, population_size: int = 6) -> list[optuna.trial.FrozenTrial]:
    sampler = RegularizedEvolutionSampler(seed, population_size=population_size, tournament_size=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(
        lambda trial: float(sum(trial.suggest_categorical(f"d{i}", (0, 1, 2, 3)) for i in range(5))), num_trials
    )
    return study.trials


def test_a_child_differs_from_a_living_parent_in_one_decision():
    trials = evolved(40)
    for trial in trials[6:]:
        population = trials[trial.number - 6 : trial.number]
        distances = [sum(parent.params[k] != v for k, v in trial.params.items()) for parent in population]
        assert 1 in distances, "a copy of one of the youngest six, changed once"


def test_evolution_climbs_and_repeats_itself_under_the_same_seed():
    values = [[t.value for t in evolved(60, seed)] for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    # A random trial is worth 7.5 on average, with a deviation of 2.5; the best possible is 15.
    assert np.mean(values[0][40:]) > 11


def test_a_choice_is_inherited_where_the_tree_offers_only_a_part_of_the_slot(large):
    sampler = SAMPLERS["evolution"](0, large.space)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for _ in range(60):
        trial = study.ask()
        spec = suggest(trial, large.space)
        study.tell(trial, true_gain(spec))
    assert len({row.spec for row in large.benchmark}) == 416
    late = [t.value for t in study.trials[40:]]
    assert np.mean(late) > np.mean([t.value for t in study.trials[:20]])


# --------------------------------------------------------------------------------------- the command


def compared(table: Path, *more: str):
    return CliRunner().invoke(app, ["benchmark", "compare", str(table), "--processes", "1", *more])


def test_one_command_writes_the_table_the_record_and_the_picture(tmp_path):
    save_benchmark(tmp_path / "table.jsonl.gz", synthetic(SMALL))
    (tmp_path / "README.md").write_text("<!-- comparison -->\n<!-- end -->\n")
    arguments = ["--repeats", "6", "--workers", "1,3", "--samplers", "mcts,random,evolution"]
    done = compared(tmp_path / "table.jsonl.gz", *arguments, "--regret-at", "4,8", "--trials", "20", "--top", "0.1")
    assert done.exit_code == 0, done.output
    said = done.output
    assert "| 3 | evolution (6) |" in (tmp_path / "README.md").read_text()
    assert "recorded at 0123456789ab" in said
    assert "| 3 | evolution (6) |" in said
    report = json.loads((tmp_path / "comparison.json").read_text())
    assert len(report["rows"]) == 6
    assert [row["repeats"] for row in report["rows"]] == [6] * 6
    assert all(len(repeat["trials_full"]) == 6 for repeat in report["repeats"])
    for row, repeat in zip(report["rows"][:1], report["repeats"]):
        found = next(r for r in report["repeats"] if (r["sampler"], r["workers"]) == (row["sampler"], row["workers"]))
        assert row["trials_full"]["median"] == np.median(found["trials_full"])
        assert repeat.keys() == found.keys()
    with (tmp_path / "comparison.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["sampler"] for row in table] == ["mcts", "random", "evolution"] * 2
    assert {"trials_full_median_low", "hours_full_mean", "regret_full_8_mean_high"} <= set(table[0])
    root = ElementTree.parse(tmp_path / "comparison.svg").getroot()
    lines = root.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2 * 2 * 3, "two panels, two numbers of workers, three samplers"


def test_the_command_refuses_a_partial_table(tmp_path):
    save_benchmark(tmp_path / "table.jsonl.gz", synthetic(SMALL, leave_out=2))
    done = compared(tmp_path / "table.jsonl.gz")
    assert isinstance(done.exception, BenchmarkError)
    assert "a partial table: of 24 specs 2 have no proxy training" in str(done.exception)


def test_scripts_refuse_a_partial_table_with_an_exit_code(tmp_path, capsys):
    save_benchmark(tmp_path / "table.jsonl.gz", synthetic(SMALL, leave_out=2))
    assert choosing.main(["--table", str(tmp_path / "table.jsonl.gz"), "--output", str(tmp_path)]) == 2
    assert "a partial table: of 24 specs 2 have no proxy training" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samplers", "mcts,best"], "best: the samplers are mcts, mcts_prior, random"),
        (["--workers", "1 4"], "whole numbers with commas"),
    ],
)
def test_the_command_refuses_what_it_cannot_read(tmp_path, options, message):
    save_benchmark(tmp_path / "table.jsonl.gz", synthetic(SMALL))
    done = compared(tmp_path / "table.jsonl.gz", *options)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", " ").split())


def test_work_is_cut_into_small_pieces_the_slow_samplers_first():
    tasks = Plan(("mcts", "tpe", "gp"), (1, 4), repeats=12).tasks()
    assert [task.sampler for task in tasks] == ["gp"] * 4 + ["tpe"] * 6 + ["mcts"] * 6
    assert [task.seeds for task in tasks[4:7]] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (10, 11)]


def test_slow_samplers_are_capped_but_never_before_the_last_regret():
    settings = Settings("", PARTS, trials=200, regret_at=(20, 80))
    assert (settings.cap("mcts"), settings.cap("tpe")) == (200, 80)
    assert Settings("", PARTS, trials=200, regret_at=(20, 120)).cap("tpe") == 120


# ------------------------------------------------------------------------------------------------ the page


def test_the_pages_lines_run_on_a_table(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "benchmark.md"
    parts = page.read_text(encoding="utf-8").split("```python\n")[1:]
    save_benchmark(tmp_path / "table.jsonl.gz", synthetic(LARGE))
    for part in parts:
        lines = part.partition("```")[0].replace(
            "experiments/distiller_benchmark/table.jsonl.gz", str(tmp_path / "table.jsonl.gz")
        )
        names: dict[str, object] = {}
        exec(compile(lines, page.name, "exec"), names)
    assert len(names["trace"].rows) == 40
    assert "table.jsonl.gz" in parts[0]
    assert len(parts) == 2
