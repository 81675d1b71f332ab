"""What data and batches have too few of to teach is left out of a run, with the reason, before anything is trained."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from autokd.cli import app
from autokd.config import load_config
from autokd.data import content_of
from autokd.detectors import check_trainable, first_trials, pair_of, unfit_baselines
from autokd.errors import ConfigError, DataError, SpaceError

PAIR = "teacher: {architecture: fcos, train: {}}\nstudent: {architecture: fcos}\n"
LOGITS = "space: {terms: 1, sources: [feature_map, class_logits], transforms: {n: [none, softmax_channels, sigmoid]}, "


def coco(folder, num_classes=1, boxes=(1, 1, 1), crowd=0):
    """Write annotations alone: images are not read. Returns the section ``data``."""
    (folder / "images").mkdir(exist_ok=True)
    images = [{"id": i, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(len(boxes))]
    owners = [i for i, number in enumerate(boxes) for _ in range(number)]
    annotations = [{"id": n, "image_id": i, "category_id": 0, "bbox": [1, 2, 30, 30], "iscrowd": int(n < crowd)}
                   for n, i in enumerate(owners)]  # fmt: skip
    categories = [{"id": k, "name": f"class {k}"} for k in range(num_classes)]
    (folder / "train.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return f"data: {{root: '{folder}', train: train.json, val: train.json}}\n"


def run_of(data, rest=""):
    config = load_config(data + PAIR + rest)
    return config, content_of(config.data)


def test_content_counts_classes_and_the_objects_of_each_image_without_crowds(tmp_path):
    _, content = run_of(coco(tmp_path, num_classes=2, boxes=(3, 0, 2, 5), crowd=1))
    assert content.num_classes == 2
    assert content.objects == (2, 0, 2, 5)
    assert (content.counts(3).classes, content.counts(3).regions, content.counts(3).images) == (2, 9, 3)
    assert content.counts(99).regions == 9


def test_content_of_generated_data_is_known_before_they_are_made():
    config = load_config("data: {format: shapes, num_train: 7}\n" + PAIR)
    assert content_of(config.data).num_classes == 6
    assert content_of(config.data).counts(4).regions == 24


def test_baselines_that_compare_the_classes_of_one_class_data_are_refused_with_the_reason(tmp_path):
    config, content = run_of(coco(tmp_path, boxes=(4, 4)), "full: {baselines: [none, kd, dkd, dist, bckd]}\n")
    unfit = unfit_baselines(config, content)
    assert "this pair cannot be trained with kd, dkd, dist:\n" in unfit
    assert "kd: transform 'softmax_channels' over classes needs 2 of them, and the data set has 1" in unfit
    assert "dkd: distance 'decoupled_kl' over classes needs 2 of them, and the data set has 1" in unfit
    assert "full: {baselines: [none, bckd]}" in unfit
    fit = unfit.split("Presets that fit: ")[1].rstrip(".").split(", ")
    assert {"fitnet", "bckd", "rkd"} <= set(fit)
    assert not {"kd", "dkd", "dist", "global_knowledge_labels"} & set(fit)
    with pytest.raises(ConfigError, match="over classes needs 2"):
        check_trainable(config, content=content)
    check_trainable(config.model_copy(update={"full": config.full.model_copy(update={"baselines": ("none",)})}))


def test_two_classes_leave_out_dist_alone(tmp_path):
    config, content = run_of(coco(tmp_path, 2, boxes=(4, 4)), "full: {baselines: [none, kd, dkd, dist]}\n")
    assert "cannot be trained with dist:\n" in unfit_baselines(config, content)


def test_batches_of_one_image_and_data_of_one_object_an_image_leave_out_what_compares_several(tmp_path):
    one_image = "full: {batch_size: 1, baselines: [none, sp, detkds, rkd, mlkd, fitnet]}\n"
    config, content = run_of(coco(tmp_path, 3), one_image)
    unfit = unfit_baselines(config, content)
    assert "cannot be trained with sp, detkds, rkd, mlkd:\n" in unfit
    assert "sp: transform 'l2_cells' over images needs 2 of them in a batch, and a batch has 1" in unfit
    assert (
        "rkd: transform 'pair_distances' over objects needs 3 of them in a batch, and no batch has more than 1" in unfit
    )
    config, content = run_of(coco(tmp_path, 3), one_image.replace("size: 1", "size: 3"))
    assert unfit_baselines(config, content) == ""


def test_a_search_counts_the_smaller_batch_and_baselines_that_of_full_trainings(tmp_path):
    recipes = "full: {batch_size: 4, baselines: [none, sp]}\nproxy: {batch_size: 1}\n"
    config, content = run_of(coco(tmp_path, 3, boxes=(2, 2)), recipes + "search: {enqueue: [sp, pkd]}\n")
    assert pair_of(config, content).counts.images == 1
    assert pair_of(config, content, searching=False).counts.images == 4
    assert unfit_baselines(config, content) == ""
    pair = pair_of(config, content)
    first = first_trials(config, pair, pair.part_of(config.space)[0])
    assert list(first.decisions) == ["pkd"]
    [note] = first.notes
    assert (
        "sp is not tried first: transform 'l2_cells' over images needs 2 of them in a batch, and a batch has 1" in note
    )


def test_the_space_drops_steps_where_they_could_not_teach_and_keeps_them_elsewhere(tmp_path):
    config, content = run_of(coco(tmp_path), LOGITS + "distances: [l2, kl, cosine]}\n")
    part, reasons = pair_of(config, content).part_of(config.space)
    assert reasons == (
        "transform 'softmax_channels' over classes needs 2 of them, and the data set has 1: with fewer it is constant",
        "distance 'cosine' over classes needs 2 of them, and the data set has 1: with fewer it is constant",
    )
    offered = {slot.name: [option.label for option in slot.options] for slot in part.slots}
    assert offered["n"] == ["none", "softmax_channels", "sigmoid"], "softmax_channels of maps can teach"
    assert "cosine" in offered["distance"]


def test_a_space_of_which_nothing_could_teach_is_refused(tmp_path):
    space = "space: {terms: 1, sources: [class_logits], transforms: {n: [softmax_channels]}, distances: [kl]}\n"
    config, content = run_of(coco(tmp_path), space)
    with pytest.raises(
        SpaceError, match="No term of the space could teach on these data: transform 'softmax_channels'"
    ):
        pair_of(config, content).part_of(config.space)


def shown(folder, text):
    (folder / "run.yaml").write_text(text)
    result = CliRunner().invoke(app, ["space", str(folder / "run.yaml")], env={"COLUMNS": "400", "NO_COLOR": "1"})
    return " ".join(result.output.split())


def test_the_command_space_says_what_is_left_out_on_one_class(tmp_path):
    baselines = "full: {baselines: [none, kd, dkd, dist]}\nsearch: {enqueue: [kd, fitnet]}\n"
    output = shown(tmp_path, coco(tmp_path) + PAIR + LOGITS + "distances: [l2, kl]}\n" + baselines)
    assert "left out: transform 'softmax_channels' over classes needs 2 of them, and the data set has 1" in output
    assert "the pair supplies all of it" not in output
    assert "search.enqueue: kd is not tried first: transform 'softmax_channels' over classes needs 2" in output
    assert "refuse this file. full.baselines: this pair cannot be trained with kd, dkd, dist" in output


def test_the_command_space_says_that_it_checked_nothing_where_annotations_are_broken(tmp_path):
    data = coco(tmp_path)
    (tmp_path / "train.json").write_text("{")
    terms = "space: {terms: {min: 1, max: 2}}\n"
    output = shown(tmp_path, data + PAIR + terms + "full: {baselines: [none, kd]}\n")
    assert "not checked: whether data and batches have the classes, objects and images of each term." in output
    assert "train.json:1:2: this is no JSON" in output
    assert "the pair supplies all of it" in output
    with pytest.raises(DataError, match="this is no JSON"):
        run_of(data)
