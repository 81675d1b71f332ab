"""Random files: AutoKD reads them or refuses them by its own errors, within a second and 200 MB.

``AUTOKD_FUZZ`` is the number of inputs in all (``make chaos``: 20,000), ``HYPOTHESIS_PROFILE=explore`` draws new ones.
"""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image

from autokd.config import load_config, load_space
from autokd.data.annotations import read_split
from autokd.detectors.weights_file import read_state_dict
from autokd.errors import AutoKDError
from autokd.spec import DistillerSpec, formula
from autokd.training.checkpoint.file import read_checkpoint, write_checkpoint
from tests.fuzz.strategies import coco, configs, damaged, distillers, edited, spaces, yaml_text

pytestmark = pytest.mark.slow

NUM_INPUTS = int(os.environ.get("AUTOKD_FUZZ", "500"))
LONGEST_S, MOST_BYTES = 1.0, 200 * 2**20

SPACE_FILE = (Path(__file__).parents[2] / "search_spaces" / "quickstart.yaml").read_text()
DISTILLER_FILE = (Path(__file__).parents[2] / "autokd" / "presets" / "pkd.yaml").read_text()


def part(share: float) -> Callable[[Any], Any]:
    """Return the settings of a test that tries a part of all inputs."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much,
            HealthCheck.function_scoped_fixture]  # fmt: skip
    return settings(
        max_examples=math.ceil(share * NUM_INPUTS), deadline=None, database=None, suppress_health_check=slow
    )


@contextmanager
def own_errors_only(what: object) -> Iterator[None]:
    """Let AutoKD's errors pass; fail for any other, and for what takes too long or too much memory."""
    began_s, memory = time.process_time(), _peak_bytes()
    try:
        yield
    except AutoKDError as error:
        message = str(error)
    else:
        message = "read"
    assert message.strip(), what
    assert time.process_time() - began_s < LONGEST_S, what
    assert _peak_bytes() - memory < MOST_BYTES, what


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@part(0.2)
@given(configs)
def test_config_files(data: dict[str, Any]) -> None:
    text = yaml_text(data)
    with own_errors_only(text):
        load_config(text)


@part(0.1)
@given(spaces)
def test_spaces(data: dict[str, Any]) -> None:
    text = yaml_text({"space": data})
    with own_errors_only(text):
        load_space(text)


@part(0.1)
@given(edited(SPACE_FILE))
def test_edited_config_files(text: str) -> None:
    with own_errors_only(text):
        load_config(text + "\n")


@part(0.2)
@given(distillers)
def test_distillers(data: dict[str, Any]) -> None:
    text = yaml_text(data)
    with own_errors_only(text):
        spec = DistillerSpec.from_yaml(text)
        assert DistillerSpec.from_yaml(spec.to_yaml()).digest == spec.digest
        assert formula(spec)


@part(0.1)
@given(edited(DISTILLER_FILE))
def test_edited_distillers(text: str) -> None:
    with own_errors_only(text):
        DistillerSpec.from_yaml(text + "\n")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "images" / "a.png")
    return folder


@part(0.2)
@given(coco)
def test_annotation_files(images: Path, data: dict[str, Any]) -> None:
    path = images / "train.json"
    path.write_text(json.dumps(data))
    with own_errors_only(data):
        split = read_split(path, images / "images", "train")
        split.ground_truth()


WEIGHTS = {"a.weight": torch.arange(12.0).reshape(3, 4), "b.bias": torch.ones(3)}


def _saved(content: object, **how: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **how)
    return stream.getvalue()


@part(0.05)
@given(damaged(_saved({"state_dict": WEIGHTS, "meta": {"classes": ("x",)}})))
def test_files_of_weights(images: Path, content: bytes) -> None:
    (images / "weights.pt").write_bytes(content)
    with own_errors_only(content):
        read_state_dict(images / "weights.pt")


@part(0.02)
@given(damaged(_saved({"state_dict": WEIGHTS}, _use_new_zipfile_serialization=False)))
def test_files_of_weights_of_old_versions(images: Path, content: bytes) -> None:
    (images / "weights.pth").write_bytes(content)
    with own_errors_only(content):
        read_state_dict(images / "weights.pth")


@pytest.fixture(scope="module")
def checkpoint(images: Path) -> bytes:
    write_checkpoint(images / "whole.checkpoint", "key", {"weights": WEIGHTS, "position": {"step": 3}})
    return (images / "whole.checkpoint").read_bytes()


@part(0.03)
@given(damaged(pickle.dumps([0] * 300)))
def test_checkpoints_of_trainings(images: Path, checkpoint: bytes, noise: bytes) -> None:
    path = images / "a.checkpoint"
    cut = len(noise) * len(checkpoint) // 700
    path.write_bytes(checkpoint[:cut] + noise[:50] + checkpoint[cut + 50 :])
    with own_errors_only(path):
        read_checkpoint(path, "key")
