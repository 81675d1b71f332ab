"""The proxy's options in a file: defaults change nothing, what cannot be is refused with place and remedy."""

from __future__ import annotations

import pytest

from autokd.config import ResolvedConfig, complete_recipes, config_digest, config_yaml, load_config
from autokd.errors import ConfigError

HEAD = "data: {format: shapes, image_size_px: [96, 128]}\nteacher: {train: {}}\nstudent: {}\n"
OPTIONS = {
    "image_size_px": ("null", "[48, 128]"),
    "of_epochs": ("null", "9"),
    "steps": ("null", "7"),
    "measure": ("every_epoch", "last_epoch"),
    "subset_rule": ("random", "k_center"),
    "frozen": ("[]", "[stem, backbone]"),
}
"""Key -> its default, and something else."""


def resolved(text: str) -> ResolvedConfig:
    return complete_recipes(load_config(HEAD + text))


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_left_out_has_its_default(key):
    plain = resolved("proxy: {warm_start: {}}\n")
    same, other = (resolved(f"proxy: {{warm_start: {{}}, {key}: {value}}}\n") for value in OPTIONS[key])
    assert config_digest(same) == config_digest(plain) != config_digest(other)
    assert load_config(config_yaml(other)).proxy == other.proxy != plain.proxy


def test_the_proxys_options_are_no_others_recipes():
    for section in ("full", "teacher"):
        text = HEAD.replace("train: {}", "train: {image_size_px: [48, 48]}") if section == "teacher" else HEAD
        with pytest.raises(ConfigError, match="image_size_px"):
            load_config(text + ("full: {image_size_px: [48, 48]}\n" if section == "full" else ""))


@pytest.mark.parametrize(
    ("proxy", "place", "found"),
    [
        ("{image_size_px: [97, 96]}", "<text>:4: proxy", "[97, 96], larger than data.image_size_px, [96, 128]"),
        ("{image_size_px: [96, 129]}", "<text>:4: proxy", "null takes just these"),
        ("{image_size_px: [31, 96]}", "<text>:4: proxy.image_size_px", "32"),
        ("{steps: 0}", "<text>:4: proxy.steps", "greater than 0"),
        ("{epochs: 3, of_epochs: 2}", "<text>:4: proxy.of_epochs", "Give at least 3"),
        ("{epochs: 3, of_epochs: 5, steps: 9}", "<text>:4: proxy.of_epochs", "Leave one of them out"),
        ("{epochs: 3, of_epochs: 5, images: 9}", "<text>:4: proxy.of_epochs", "Leave one of them out"),
        ("{measure: last_epohc}", "<text>:4: proxy.measure", "Did you mean 'last_epoch'?"),
        ("{subset_rule: stratifeid}", "<text>:4: proxy.subset_rule", "Did you mean 'stratified'?"),
        ("{frozen: [stm]}", "<text>:4: proxy.frozen[0]", "Did you mean 'stem'?"),
        ("{frozen: [stem], warm_start: null}", "<text>:4: proxy.frozen", "leave frozen out"),
        ("{frozen: [stem], warm_start: {epochs: 0}}", "<text>:4: proxy.frozen", "at least one epoch"),
        ("{reward: [ap_worst]}", "<text>:4: proxy.reward[0]", "Did you mean 'ap_worst_class'?"),
        ("{measure: last_epoch}\nsearch: {pruner: median}", "<text>:4: proxy", "search.pruner is median"),
        ("{image_size_px: 48}", "<text>:4: proxy.image_size_px", "48"),
    ],
)
def test_what_cannot_be_is_refused_with_place_and_remedy(proxy, place, found):
    with pytest.raises(ConfigError) as error:
        load_config(HEAD + f"proxy: {proxy}\n")
    assert place in str(error.value)
    assert found in str(error.value)


def test_a_pruner_and_measuring_at_the_end_go_each_alone():
    assert load_config(HEAD + "proxy: {measure: last_epoch}\n").proxy.measure == "last_epoch"
    assert load_config(HEAD + "search: {pruner: median}\n").search.pruner == "median"


def test_every_metric_may_be_part_of_the_reward():
    metrics = ("val_loss", "val_loss_parts", "cka", "ap", "ap_50", "ap_worst_class")
    assert load_config(HEAD + f"proxy: {{reward: [{', '.join(metrics)}]}}\n").proxy.reward == metrics
