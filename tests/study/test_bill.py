"""The bill of a run: phases counted by hand, sums, what dominates, what cannot fit."""

from __future__ import annotations

import pytest

from autokd.config import complete_recipes, load_config
from autokd.study import Bill, Phase
from autokd.study.bill import size_words, time_words
from autokd.study.planning import SplitSizes, forecast
from autokd.training.cost.measured import MeasuredCosts, RecipeCosts
from autokd.training.cost.speed import StepCost

TEXT = """
data: {format: shapes, image_size_px: [64, 64]}
teacher: {train: {epochs: 3, batch_size: 10}}
student: {}
space: {terms: {min: 1, max: 2}}
search: {trials: 7, finalists: 2, finalist_seeds: [1, 2, 3]}
proxy: {epochs: 2, batch_size: 5, val_subset: 0.5, subset: 0.1, flip_probability: 0.1}
full: {epochs: 4, batch_size: 20, seeds: [0, 1], baselines: [none, fitnet]}
runtime: {workers: 2}
"""
SIZES = SplitSizes(train=1000, val=100, test=50)


def recipe(step_s: float, distilled_s: float, val_s: float, test_s: float) -> RecipeCosts:
    none, distilled = StepCost(step_s, step_s), StepCost(distilled_s, distilled_s)
    return RecipeCosts(none, distilled, val_s, test_s, start_s=1.0, by_distiller={"fitnet": StepCost(5.0, 5.0)})


COSTS = MeasuredCosts(
    device="cpu",
    device_name="x",
    threads=1,
    recipes={"proxy": recipe(0.1, 0.2, 0.01, 0.0), "full": recipe(2.0, 3.0, 0.02, 0.03)},
    teacher_steps={0: StepCost(0.5, 0.5)},
    teacher_image_s={(0, (64, 64)): 0.25},
    measure_image_s=0.03,
    bytes_per_view={(0, (64, 64), ("fpn",)): 1000},
    stored_bytes=0,
    memory_bytes=10**9,
    total_memory_bytes=4 * 10**9,
    seconds=30.0,
)


def phases(text: str = TEXT, costs: MeasuredCosts = COSTS) -> dict[str, Phase]:
    return {phase.name: phase for phase in forecast(complete_recipes(load_config(text)), SIZES, costs)}


def bill(**changes) -> Bill:
    fields = {
        "name": "x", "phases": tuple(phases().values()), "workers": 2, "gpus": 2.0, "price": 3.0,
        "free_bytes": 10**10, "present_bytes": 0, "worker_bytes": 10**9, "memory_bytes": 4 * 10**9,
        "workers_in_memory": 2, "device": "x", "measured_s": 30.0,
    }  # fmt: skip
    return Bill(**{**fields, **changes})


def test_each_phase_is_trainings_times_steps_times_seconds():
    found = phases()
    # 3 epochs of 100 steps; AP on 150 images.
    assert found["teacher"].seconds == pytest.approx(300 * 0.5 + 150 * 0.03)
    # Full: all 1000 images in 2 views, and 100 of val. Proxies: 100 images in 2 views for each of 4 seeds.
    views = 2000 + 100 + 4 * 200
    assert found["teachers' outputs"].images == views
    assert found["teachers' outputs"].disk_bytes == views * 1000
    assert found["teachers' outputs"].seconds == pytest.approx(views * 0.25)
    # 2 epochs of 20 steps, each followed by 50 of 100 validation images; the reference without distillation.
    none_s, trial_s = (1 + 40 * step_s + 2 * 50 * 0.01 for step_s in (0.1, 0.2))
    assert found["proxies"].jobs == 8
    assert found["proxies"].seconds == pytest.approx(none_s + 7 * trial_s)
    assert found["proxies"].wall_s == pytest.approx(none_s + 7 * trial_s / 2)
    assert found["finalists' race"].seconds == pytest.approx(3 * (none_s + 2 * trial_s))
    # 4 epochs of 50 steps; 100 images of val, 50 of test; fitnet's own steps were measured.
    full_s = [1 + 200 * step_s + 100 * 0.02 + 50 * 0.03 for step_s in (3.0, 2.0, 5.0)]
    assert found["winner in full"].seconds == pytest.approx(2 * full_s[0])
    assert found["baselines in full"].seconds == pytest.approx(2 * (full_s[1] + full_s[2]))
    assert found["baselines in full"].wall_s == pytest.approx(full_s[1] + full_s[2])


def test_a_teacher_with_weights_and_live_full_trainings_cost_less():
    text = TEXT.replace("batch_size: 20,", "batch_size: 20, num_views: endless,").replace(
        "val_subset: 0.5", "reward: [ap]"
    )
    found = phases(text, MeasuredCosts(**{**COSTS.__dict__, "teacher_steps": {}}))
    assert found["teacher"].seconds == pytest.approx(150 * 0.03)
    assert found["teachers' outputs"].images == 4 * 200


def test_relative_weights_cost_more_in_the_first_steps_and_then_once_in_every_few():
    assert StepCost(3.0, 1.0, every=20).seconds(2) == pytest.approx(6.0)
    assert StepCost(3.0, 1.0, every=20).seconds(103) == pytest.approx(3 * 3.0 + 100 * (1.0 + 2.0 / 20))
    assert StepCost(3.0, 1.0).seconds(103) == pytest.approx(9.0 + 100.0)


def test_money_is_price_times_cards_times_hours():
    found = bill()
    hours = sum(phase.wall_s for phase in found.phases) / 3600
    assert found.cost(found.wall_s) == pytest.approx(3.0 * 2 * hours)
    assert bill(price=None).cost(1.0) is None
    assert f"{3.0 * 2 * hours:.2f} at 3 an hour" in found.line()


def test_what_dominates_is_named_with_the_setting_that_changes_it():
    found = bill()
    assert found.dominant.name == "baselines in full"
    time_advice, disk_advice = found.advice()
    assert "of time is baselines in full: full.baselines" in time_advice
    assert disk_advice.startswith("100% of the disk's space is teachers' outputs: set full.num_views to endless")


def test_what_cannot_fit_is_refused_with_numbers_and_a_remedy():
    assert bill().excess() == ""
    assert "need 2.9 MB of disk, and 3 MB are free" in bill(free_bytes=3_000_000).excess()
    assert bill(free_bytes=3_000_000, present_bytes=1_000_000).excess() == ""
    assert "2 workers need 4 GB of memory, and there are 4 GB" in bill(worker_bytes=2 * 10**9).excess()


def test_the_data_of_a_bill_are_plain_and_whole():
    data = bill().to_data()
    assert data["wall_s"] == pytest.approx(sum(phase["wall_s"] for phase in data["phases"]))
    assert data["cost"] == pytest.approx(sum(phase["cost"] for phase in data["phases"]))
    assert {"disk_bytes", "free_bytes", "advice", "excess", "worker_bytes"} <= set(data)


@pytest.mark.parametrize(
    ("seconds", "words"), [(40, "40 s"), (1500, "25 min"), (40_000, "11.1 h"), (259_200, "3.0 days")]
)
def test_times_have_a_unit_that_fits(seconds, words):
    assert time_words(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(1.034e12, "1.03 TB"), (20.7e9, "20.7 GB"), (5e5, "500 kB")])
def test_sizes_have_a_unit_that_fits(count, words):
    assert size_words(count) == words
