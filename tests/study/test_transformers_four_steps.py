"""Every command of "Distill my RT-DETR in four steps" in docs/transformers.md, run as it stands.

The data are small, the models tiny and random, the trainings short: the frame is made smaller, and recipes are appended
to the config file. Nothing else is changed. The AP that plain transformers reaches with the exported folder is that of
``results.json``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from autokd.config import ShapesData
from autokd.data.shapes import write_shapes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="pip install 'autokd[transformers]'"),
]

ROOT = Path(__file__).parents[2]
SHORT = """
space: {terms: 1, sources: [feature_map], distances: [l2, cosine]}
search: {trials: 2, enqueue: [feature_kd], finalists: 1, finalist_seeds: [1]}
proxy: {epochs: 1, warm_start: {epochs: 1}, calibration_trials: 1}
runtime: {workers: 0}
"""


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the section's blocks, in order."""
    section = (ROOT / "docs" / "transformers.md").read_text().split("## Distill my RT-DETR in four steps")[1]
    return re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """What the page takes for granted: data, and both models as ``save_pretrained`` writes them."""
    from autokd.data import load_datasets
    from autokd.detectors import build_detector
    from tests.support.transformers_cases import section

    data = ShapesData(format="shapes", image_size_px=(64, 96), num_train=16, num_val=6, num_test=1)
    (tmp_path / "data").symlink_to(write_shapes(data, tmp_path / "generated"), target_is_directory=True)
    classes = load_datasets(data, tmp_path / "cache").train.classes
    for name, model_type in (("teacher", "d_fine"), ("student", "rt_detr_v2")):
        torch.manual_seed(0)
        detector = build_detector(section(model_type), len(classes), (64, 96), classes)
        detector.model.save_pretrained(tmp_path / name)
        detector.processor.save_pretrained(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_four_steps_works(folder):
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AUTOKD_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    num_commands = 0
    for language, text in blocks():
        if language in ("yaml", "python"):
            name = text.splitlines()[0].removeprefix("# ")
            small = text.replace("[640, 640]", "[64, 96]")
            short = "epochs: 1, batch_size: 4, seeds: [0], baselines: [none]"
            small = small.replace("epochs: 24, batch_size: 16", short)
            Path(name).write_text(small + SHORT if language == "yaml" else small)
            continue
        assert language == "bash"
        for line in text.splitlines():
            command = line.split("#")[0]
            done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            num_commands += 1
    assert num_commands == 5
    results = json.loads(Path("runs/mine/results.json").read_text())
    (wanted,) = (entry["val_ap"][0] for entry in results["entries"] if entry["name"] == results["winner"])
    assert _ap_of_plain_transformers(Path("runs/mine/student"), Path("data")) == pytest.approx(wanted, abs=1e-4)


def _ap_of_plain_transformers(student: Path, data: Path) -> float:
    """COCO AP on the validation images of the folder's own function ``detect``."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (code,) = re.findall(r"```python\n(.*?)```", (student / "README.md").read_text(), re.DOTALL)
    names = {"FOLDER": str(student)}
    exec(code, names)
    truth = COCO(str(data / "instances_val.json"))
    category_of = {category["name"]: key for key, category in truth.cats.items()}
    found = []
    for image_id, about in truth.imgs.items():
        with Image.open(next((data / "images").rglob(about["file_name"]))) as image:
            result = names["detect"](image, threshold=0.0)
        for box, score, label in zip(result["boxes"].tolist(), result["scores"].tolist(), result["labels"].tolist()):
            category = category_of[names["model"].config.id2label[label]]
            xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            found.append({"image_id": image_id, "category_id": category, "bbox": xywh, "score": score})
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    return float(evaluation.stats[0])
