"""A run whose student is MMDetection's: its files reach, in plain MMDetection, the AP that results.json states."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from autokd.config import ShapesData, load_config
from autokd.data.shapes import write_shapes
from autokd.presets import load_distiller
from autokd.study import run_distill

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("mmengine"), reason="pip install 'autokd[mmdet]'"),
    *(pytest.mark.filterwarnings(f"ignore:::{library}") for library in ("mmdet", "mmcv", "mmengine", "torch")),
]

GFL = Path(__file__).parents[1] / "detectors" / "mmdet" / "configs" / "gfl.py"
FILE = """
name: handed-over
data: {{root: {root}, train: instances_train.json, val: instances_val.json, image_size_px: [{height}, 80]}}
teacher: {{backbone: {{width: 8}}, train: {{epochs: 1}}}}
student: {{framework: mmdet, config: {config}}}
full: {{epochs: 30, seeds: [0], baselines: [none], learning_rate: 0.004}}
runtime: {{workers: 0}}
"""


@pytest.fixture(scope="module", params=[64, 96], ids=["across", "upright"])
def finished(request, tmp_path_factory):
    """(run directory, folder of the images, results, tolerance of AP): the frame lies as the images do, or not."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("mmdet_run")
    data = ShapesData(format="shapes", image_size_px=(64, 96), num_train=12, num_val=12, num_test=1)
    root = write_shapes(data, folder)
    # A student that has learned its validation images by heart has an AP worth comparing.
    for name in ("instances_val.json", "instances_test.json"):
        (root / name).write_text((root / "instances_train.json").read_text())
    config = load_config(FILE.format(root=root, config=GFL, height=request.param))
    spec = load_distiller("fitnet").with_gradient_ratio(20)
    # Upright, FixShapeResize rounds the way back to whole pixels: over six training seeds the AP of these 50 objects
    # then differed by -.0099 to +.0031, standard deviation .0042. Four of these; a wrong class or scale costs far more.
    tolerance = 1e-4 if request.param == 64 else 0.017
    return folder / "run", root, run_distill(config, spec, folder / "run", cache_dir=folder / "cache"), tolerance


def average_precision(results: list[dict], annotations: Path) -> float:
    """COCO's AP by pycocotools alone."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_plain_mmdet_reaches_the_ap_that_the_results_state(finished, capfd):
    from mmdet.apis import inference_detector, init_detector

    directory, root, results, tolerance = finished
    model = init_detector(str(directory / "student.py"), str(directory / "student.pth"), device="cpu")
    printed = "".join(capfd.readouterr())
    assert "missing keys" not in printed
    assert "unexpected key" not in printed
    rows, clipped = [], []
    for image in json.loads((root / "instances_val.json").read_text())["images"]:
        found = inference_detector(model, str(root / "images" / image["file_name"])).pred_instances
        limits = torch.tensor([image["width"], image["height"]] * 2)
        for to, boxes in ((rows, found.bboxes), (clipped, found.bboxes.clamp(min=0).minimum(limits))):
            boxes = boxes.numpy().astype(np.float64)
            for box, score, label in zip(boxes, found.scores.tolist(), found.labels.tolist()):
                xywh = [*box[:2], *(box[2:] - box[:2])]
                to.append({"image_id": image["id"], "category_id": label + 1, "bbox": xywh, "score": score})
    (stated,) = next(entry for entry in results.entries if entry.name == results.winner).val_ap
    assert stated > 0.05, "a student that finds nothing would prove nothing"
    assert average_precision(clipped, root / "instances_val.json") == pytest.approx(stated, abs=tolerance)
    # As it comes: MMDetection clips boxes to the padded image, AutoKD to the photograph.
    assert average_precision(rows, root / "instances_val.json") == pytest.approx(stated, abs=max(0.01, tolerance))
