"""A recipe taken of a config trains as mmengine would: rates step by step, decays, scaled by the batch size."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autokd.config import MmdetDetector, Recipe, config_digest, config_yaml, load_config
from autokd.detectors import resolve
from autokd.detectors.mmdet import recipe_of_config
from autokd.errors import ConfigError
from autokd.training.optim.optimizer import make_optimizer, parameter_groups, rate_factor
from tests.support.runner_cases import CONFIGS

EPOCHS, STEPS = 12, 7
RATE = 0.02
SGD = {"type": "SGD", "lr": RATE, "momentum": 0.9, "weight_decay": 1e-4}

RISE = {"type": "LinearLR", "start_factor": 0.001, "by_epoch": False, "begin": 0, "end": 20}
FALLS = {
    "steps": {"type": "MultiStepLR", "by_epoch": True, "begin": 0, "end": 12, "milestones": [8, 11], "gamma": 0.1},
    "every third epoch": {"type": "StepLR", "by_epoch": True, "step_size": 3, "gamma": 0.5},
    "cosine by epoch": {"type": "CosineAnnealingLR", "T_max": 12, "begin": 0, "end": 12, "eta_min": 0.0},
    "cosine by step": {"type": "CosineAnnealingLR", "T_max": 12, "begin": 0, "end": 12, "convert_to_iter_based": True},
    "late cosine": {
        "type": "CosineAnnealingLR", "T_max": 6, "begin": 6, "end": 12, "eta_min": 0.001, "convert_to_iter_based": True,
    },
    "cosine that ends early": {"type": "CosineAnnealingLR", "begin": 3, "end": 10, "T_max": 7, "eta_min_ratio": 0.05},
    "poly by step": {
        "type": "PolyLR", "power": 0.9, "begin": 4, "end": 12, "eta_min": 1e-4, "convert_to_iter_based": True,
    },
    "poly by epoch": {"type": "PolyLR", "power": 2.0, "begin": 0, "end": 12, "eta_min": 0.0},
    "nothing": None,
}  # fmt: skip


@pytest.fixture
def config_file(tmp_path):
    """Write a config that trains as told, over a small model."""

    def write(**settings):
        about = {
            "optim_wrapper": {"type": "OptimWrapper", "optimizer": SGD},
            "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": EPOCHS},
            "train_dataloader": {"batch_size": 2, "dataset": {"pipeline": [{"type": "RandomFlip", "prob": 0.5}]}},
        } | settings
        path = tmp_path / "student.py"
        lines = [f"{name} = {value!r}" for name, value in about.items() if value is not None]
        path.write_text("\n".join([f"_base_ = {str(CONFIGS / 'gfl.py')!r}", *lines]))
        return MmdetDetector(framework="mmdet", config=str(path))

    return write


def rates_of_mmengine(schedulers, num_epochs=EPOCHS, steps_per_epoch=STEPS) -> list[float]:
    """As the Runner's hooks drive the schedulers: those by step after every step, those by epoch after every epoch."""
    import mmdet.engine  # noqa: F401 - registers QuadraticWarmupLR
    from mmdet.registry import PARAM_SCHEDULERS

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=RATE)
    built = [
        PARAM_SCHEDULERS.build(copy.deepcopy(s), default_args={"optimizer": optimizer, "epoch_length": steps_per_epoch})
        for s in schedulers
    ]
    rates = []
    for _ in range(num_epochs):
        for _ in range(steps_per_epoch):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            for scheduler in built:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in built:
            if scheduler.by_epoch:
                scheduler.step()
    return rates


def rates_of(recipe: Recipe, num_epochs=EPOCHS, steps_per_epoch=STEPS) -> list[float]:
    num_steps = num_epochs * steps_per_epoch
    return [recipe.learning_rate * rate_factor(s, num_steps, recipe, steps_per_epoch) for s in range(num_steps)]


@pytest.mark.parametrize("rise", [None, RISE, RISE | {"end": 2, "by_epoch": True, "convert_to_iter_based": True}])
@pytest.mark.parametrize("fall", FALLS)
def test_rates_are_mmengines_at_every_step(rise, fall, config_file):
    schedulers = [s for s in (rise, FALLS[fall]) if s is not None]
    found = recipe_of_config(config_file(param_scheduler=schedulers), {})
    assert found.left == ()
    assert rates_of(Recipe(**found.fields)) == pytest.approx(rates_of_mmengine(schedulers), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("length", [1, 4, 24])
def test_another_length_has_the_same_shape(length, config_file):
    """As MMDetection's own 2x schedules are to its 1x: milestones of 8 and 11 in 12 are 16 and 22 in 24."""
    recipe = Recipe(**recipe_of_config(config_file(param_scheduler=[FALLS["steps"]]), {}).fields)
    milestones = [round(length * STEPS * part) for part in (8 / 12, 11 / 12)]
    expected = [RATE * 0.1 ** sum(step >= at for at in milestones) for step in range(length * STEPS)]
    assert rates_of(recipe, length) == pytest.approx(expected)


def test_trainings_that_count_in_steps_give_parts_of_these(config_file):
    fall = {"type": "MultiStepLR", "by_epoch": False, "milestones": [56, 77], "gamma": 0.1}
    loop = {"type": "IterBasedTrainLoop", "max_iters": 84}
    found = recipe_of_config(config_file(param_scheduler=[RISE, fall], train_cfg=loop), {})
    assert "epochs" not in found.fields
    assert any("max_iters 84" in sentence for sentence in found.left)
    assert rates_of(Recipe(**found.fields)) == pytest.approx(rates_of_mmengine([RISE, fall]), rel=1e-9)


def test_a_quadratic_rise_is_taken_as_a_linear_one_and_said(config_file):
    rise = {"type": "mmdet.QuadraticWarmupLR", "by_epoch": True, "begin": 0, "end": 5, "convert_to_iter_based": True}
    found = recipe_of_config(config_file(param_scheduler=[rise]), {})
    assert any("QuadraticWarmupLR: a linear rise" in sentence for sentence in found.left)
    ours, theirs = rates_of(Recipe(**found.fields)), rates_of_mmengine([rise])
    assert ours[35:] == pytest.approx([RATE] * 49) == theirs[35:]


def test_a_rate_that_is_scaled_below_its_least_value_stays(config_file):
    fall = FALLS["late cosine"] | {"eta_min": 0.01}
    section = config_file(param_scheduler=[fall], auto_scale_lr={"base_batch_size": 64})
    found = recipe_of_config(section, {})
    assert Recipe(**found.fields).end_factor == 1
    assert any("eta_min is above the rate 0.000625" in sentence for sentence in found.left)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        ({"type": "ExponentialLR", "gamma": 0.9}, r"param_scheduler\[0\] is a ExponentialLR"),
        (RISE | {"begin": 5}, r"param_scheduler\[0\] is a LinearLR"),
        (RISE | {"end_factor": 0.5}, "ends below the rate"),
        (FALLS["steps"] | {"by_epoch": False}, "counts in steps, and the training in epochs"),
    ],
)
def test_schedules_that_recipes_cannot_say_are_refused_unless_the_config_file_gives_one(scheduler, said, config_file):
    section = config_file(param_scheduler=[scheduler])
    with pytest.raises(ConfigError, match=said) as error:
        recipe_of_config(section, {})
    assert "Give 'full.schedule'" in str(error.value)
    assert "schedule" not in recipe_of_config(section, {"schedule": "one_cycle"}).fields


# ------------------------------------------------------------------------------------------ optimizer


ADAMW = {"type": "AdamW", "lr": 1e-3, "weight_decay": 0.05}
PART, HALF = {"norm_decay_mult": 0.0}, {"norm_decay_mult": 0.0, "bias_decay_mult": 0.5}


@pytest.mark.parametrize(
    ("optimizer", "paramwise"),
    [
        (SGD, {}),
        (SGD, PART),
        (SGD | {"nesterov": True}, HALF),
        (ADAMW, {}),
        (ADAMW, HALF),
        ({"type": "AdamW", "lr": 1e-3}, {}),
        ({"type": "SGD", "lr": 0.1}, {}),
    ],
)
def test_the_optimizer_and_every_parameters_decay_are_mmengines(optimizer, paramwise, config_file):
    from mmengine.optim import build_optim_wrapper

    wrapper = {"type": "OptimWrapper", "optimizer": optimizer, "paramwise_cfg": paramwise}
    recipe = Recipe(**recipe_of_config(config_file(optim_wrapper=wrapper), {}).fields)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False), nn.GroupNorm(2, 4))
    theirs = build_optim_wrapper(model, copy.deepcopy(wrapper)).optimizer
    decays = recipe.weight_decay, recipe.norm_decay, recipe.bias_decay
    ours = make_optimizer(parameter_groups(model, None, *decays), recipe)
    assert type(ours) is type(theirs)
    names = {parameter: name for name, parameter in model.named_parameters()}
    keys = ("lr", "weight_decay", *(("momentum", "nesterov") if recipe.optimizer == "sgd" else ("betas", "eps")))
    expected, found = (
        {names[p]: tuple(group[key] for key in keys) for group in optimizer.param_groups for p in group["params"]}
        for optimizer in (theirs, ours)
    )
    assert found == expected


def test_the_rate_is_scaled_by_the_batch_size_as_mmengines_scale_lr_does(config_file):
    """0.02 for 16 images a step, as everywhere in MMDetection's zoo."""
    section = config_file(auto_scale_lr={"base_batch_size": 16, "enable": False})
    assert recipe_of_config(section, {}).fields["learning_rate"] == pytest.approx(0.0025)
    assert recipe_of_config(section, {"batch_size": 8}).fields["learning_rate"] == pytest.approx(0.01)
    assert recipe_of_config(config_file(), {"batch_size": 8}).fields["learning_rate"] == 0.02


def test_an_optimizer_that_is_not_there_or_unknown_is_refused_with_the_remedy(config_file):
    for wrapper, said in ((None, "has no optim_wrapper"), ({"optimizer": {"type": "Adam", "lr": 1}}, "is Adam")):
        with pytest.raises(ConfigError, match=said):
            recipe_of_config(config_file(optim_wrapper=wrapper), {})
        found = recipe_of_config(config_file(optim_wrapper=wrapper), {"optimizer": "adamw"})
        assert not {"optimizer", "learning_rate", "weight_decay"} & found.fields.keys()


def test_what_is_not_taken_is_named(config_file):
    wrapper = {
        "optimizer": SGD | {"dampening": 0.1},
        "paramwise_cfg": {"custom_keys": {"backbone": {"lr_mult": 0.1}}},
        "accumulative_counts": 4,
        "clip_grad": {"max_norm": 35, "norm_type": 1},
    }
    pipeline = [{"type": "LoadImageFromFile"}, {"type": "RandomCrop"}, {"type": "RandomFlip", "prob": [0.3, 0.3]}]
    section = config_file(
        optim_wrapper=wrapper,
        custom_hooks=[{"type": "EMAHook"}],
        train_dataloader={"batch_size": 4, "dataset": {"type": "RepeatDataset", "dataset": {"pipeline": pipeline}}},
    )
    found = recipe_of_config(section, {})
    said = "; ".join(found.left)
    for name in (
        "dampening",
        "custom_keys",
        "accumulative_counts 4",
        "clip_grad",
        "EMAHook",
        "RandomCrop",
        "RandomFlip",
    ):
        assert name in said
    assert not {"gradient_clip_norm", "flip_probability"} & found.fields.keys()


def test_clipping_and_flips_are_taken(config_file):
    wrapper = {"optimizer": SGD, "clip_grad": {"max_norm": 35, "norm_type": 2}}
    fields = recipe_of_config(config_file(optim_wrapper=wrapper), {}).fields
    assert (fields["gradient_clip_norm"], fields["flip_probability"]) == (35.0, 0.5)
    assert recipe_of_config(config_file(), {}).fields["gradient_clip_norm"] is None


# ------------------------------------------------------------------------------------- the config file


def resolved(section: MmdetDetector, rest: str = ""):
    text = "data: {format: shapes}\nteacher: {train: {}}\n"
    text += f"student: {{framework: mmdet, config: {section.config}}}\nfull: {{from_student_config: true}}\n{rest}"
    return resolve(load_config(text.replace("true}\nfull: {", "true, ")))


def test_the_config_file_goes_before_the_students_config(config_file):
    section = config_file(param_scheduler=[RISE, FALLS["steps"]], auto_scale_lr={"base_batch_size": 16})
    config = resolved(
        section, "full: {batch_size: 4, weight_decay: 0.1}\nproxy: {epochs: 3, batch_size: 8, warm_start: {}}\n"
    )
    notes = config.notes
    full, proxy = config.full, config.proxy
    assert (full.epochs, full.batch_size, full.optimizer, full.weight_decay) == (12, 4, "sgd", 0.1)
    assert (full.learning_rate, proxy.learning_rate) == (pytest.approx(0.005), pytest.approx(0.01))
    assert (proxy.epochs, proxy.batch_size, proxy.schedule) == (3, 8, "multi_step")
    assert (full.warmup_steps, proxy.warmup_steps) == (20, 5), "a quarter of the epochs, a quarter of the warm-up"
    assert config.proxy.warm_start.epochs == 6
    assert "says epochs 12, optimizer sgd, momentum 0.9" in notes[0]
    assert "learning_rate 0.005 (0.02 for 16 images a step)" in notes[0]
    assert "the config file says batch_size 4, weight_decay 0.1" in notes[1]


def test_a_given_warm_start_stays_and_a_resolved_configuration_stands_for_itself(config_file):
    section = config_file(param_scheduler=[FALLS["cosine by step"]])
    config = resolved(section, "proxy: {warm_start: {epochs: 2}}\n")
    assert config.proxy.warm_start.epochs == 2
    assert config.notes
    assert resolve(config) is config
    written = load_config(config_yaml(config))
    config_file(param_scheduler=[FALLS["steps"]])
    again = resolve(written)
    assert (again.full, again.proxy) == (config.full, config.proxy), "the student's config is not read again"
    assert config_digest(again) == config_digest(config)


def test_numbers_that_no_recipe_can_have_are_named(config_file):
    section = config_file(optim_wrapper={"optimizer": SGD | {"momentum": 1.5}})
    with pytest.raises(ConfigError, match=r"momentum is 1\.5: Input should be less than 1"):
        resolved(section)


def test_a_student_of_torchvision_says_no_recipe():
    with pytest.raises(ConfigError, match="full: from_student_config is true, but a section of framework torchvision"):
        load_config("data: {format: shapes}\nteacher: {train: {}}\nstudent: {}\nfull: {from_student_config: true}\n")
