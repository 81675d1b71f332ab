"""Lengths in steps and images: of proxies, full trainings, teachers and warm starts, for small sets and large ones."""

from __future__ import annotations

import pytest
import torch

from autokd.config import FullRecipe, Recipe, complete_recipes, load_config
from autokd.training.assets import TrainingAssets
from autokd.training.length import Length, recipe_length
from autokd.training.loader import training_plan
from autokd.training.loop import Schedule, train
from autokd.training.weights import weights_digest

CPU = torch.device("cpu")
HEAD = "data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\n"


def length_of_proxy(text: str, num_images: int) -> Length:
    return recipe_length(complete_recipes(load_config(HEAD + text)).proxy, num_images)


def test_the_default_proxy_is_two_epochs_of_a_small_set_and_a_part_of_an_epoch_of_coco():
    assert length_of_proxy("", 200) == Length(2, 100, 400)
    assert length_of_proxy("", 10_000) == Length(2, 5_000, 20_000)
    assert length_of_proxy("", 118_287) == Length(1, 5_000, 20_000)


@pytest.mark.parametrize("given", ["epochs: 2", "of_epochs: 3", "steps: 100000", "images: null", "images: 400000"])
def test_a_length_that_the_file_gives_is_not_limited(given):
    assert length_of_proxy(f"proxy: {{{given}}}\n", 118_287).epochs == 2


def test_other_keys_leave_the_default_limit():
    assert length_of_proxy("proxy: {batch_size: 16, steps: null}\n", 118_287) == Length(1, 1_250, 20_000)


def test_a_limit_of_full_trainings_is_not_the_proxys():
    text = "full: {images: 1000, batch_size: 10}\nproxy: {epochs: 1}\n"
    config = complete_recipes(load_config(HEAD + text))
    assert (config.full.most_steps, config.proxy.most_steps) == (100, None)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [({}, None), ({"steps": 7}, 7), ({"images": 17}, 5), ({"images": 16}, 4), ({"steps": 3, "images": 16}, 3)],
)
def test_the_lesser_limit_counts_in_whole_steps(limits, steps):
    assert Recipe(batch_size=4, **limits).most_steps == steps


def test_a_full_training_of_six_images_makes_three_steps_of_two_and_its_schedule_ends_there(
    make_tiny_config, tiny_data, tiny_cache
):
    config = make_tiny_config(full={"images": 6, "batch_size": 2, "epochs": 5})
    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    results = list(
        train(
            assets.students.new(0),
            assets.data.training_loader("full"),
            config.full,
            seed=0,
            schedule=Schedule(max_steps=config.full.most_steps),
        )
    )
    assert [result.num_epochs for result in results] == [1]
    # The last step of a one-cycle schedule has a ten-thousandth of the peak.
    assert results[0].learning_rate == pytest.approx(config.full.learning_rate * 1e-4)


def test_a_warm_start_of_four_images_is_the_first_two_steps_of_the_full_training(
    make_tiny_config, tiny_data, tiny_cache
):
    config = make_tiny_config(full={"batch_size": 2}, proxy={"warm_start": {"epochs": 5, "images": 4}})
    assets = TrainingAssets(config, tiny_cache, CPU, tiny_data)
    student = assets.students.new(0)
    whole = train(
        student, assets.data.training_loader("full"), config.full, seed=0, schedule=Schedule(stop_after_steps=2)
    )
    assert [result.num_epochs for result in whole] == [2]
    assert weights_digest(assets.students.warm(0).state_dict()) == weights_digest(student.state_dict())


def test_a_warm_start_is_half_of_a_limited_full_training():
    def warm_start(text: str):
        return complete_recipes(load_config(HEAD + text)).proxy.warm_start

    assert warm_start("proxy: {warm_start: {}}\nfull: {images: 800, epochs: 9}\n").images == 400
    assert warm_start("proxy: {warm_start: {}}\nfull: {epochs: 9}\n").images is None
    assert warm_start("proxy: {warm_start: {epochs: 2}}\nfull: {images: 800}\n").images is None


def test_mixtures_end_before_a_limited_training_does(tiny_data):
    recipe = FullRecipe(num_views="endless", mosaic_probability=0.5, epochs=100, batch_size=2, images=40, mix_until=0.6)
    assert training_plan(tiny_data.train, recipe).mix_epochs == 3  # of 5 epochs of 8 images
