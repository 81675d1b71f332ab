"""Every command of "Distill my MMDetection model in four steps" in docs/mmdetection.md, run as it stands.

The data are small, the trainings short: the frame is made smaller, recipes are appended to the config file, and the
last epoch of the student's own config is the second. Nothing else is changed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from autokd.config import MmdetDetector, ShapesData
from autokd.data.shapes import write_shapes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("mmengine"), reason="pip install 'autokd[mmdet]'"),
]

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "tests" / "detectors" / "mmdet" / "configs"
SHORT = """
space: {terms: 1, sources: [feature_map], transforms: {normalize: [none, standardize]}, distances: [l2]}
search: {trials: 2, enqueue: [fitnet], finalists: 1, finalist_seeds: [1]}
proxy: {epochs: 1, warm_start: {epochs: 1}, calibration_trials: 1}
runtime: {workers: 0}
"""


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the section's blocks, in order."""
    page = (ROOT / "docs" / "mmdetection.md").read_text()
    section = page.split("## Distill my MMDetection model in four steps")[1].split("\n### ")[0]
    return re.findall(r"^```(\w+)\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """What the page takes for granted: data, both configs, the teacher's checkpoint, MMDetection's scripts."""
    from autokd.detectors.mmdet import build_mmdet_model
    from tests.support.runner_cases import CLASSES, TRAINING

    data = ShapesData(format="shapes", image_size_px=(64, 96), num_train=8, num_val=4, num_test=1)
    (tmp_path / "data").symlink_to(write_shapes(data, tmp_path / "generated"), target_is_directory=True)
    for name, model in (("teacher", "retinanet"), ("student", "gfl")):
        text = TRAINING.format(
            model=CONFIGS / f"{model}.py", classes=CLASSES, root="data", flip=0.5, head="bbox_head=dict(num_classes=6)"
        )
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    teacher = build_mmdet_model(MmdetDetector(framework="mmdet", config="teacher.py"), len(CLASSES))
    meta = {"dataset_meta": {"classes": CLASSES}}
    torch.save({"state_dict": teacher.state_dict(), "meta": meta}, "teacher.pth")
    import mmdet

    shutil.copytree(Path(mmdet.__file__).parent / ".mim" / "tools", "tools")
    Image.open(next(Path("data/images/val").iterdir())).save("photograph.jpg")
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
            small = text.replace("[480, 640]", "[64, 96]")
            small = small.replace("config: true}", "config: true, epochs: 1, seeds: [0], baselines: [none]}")
            Path(name).write_text(small + SHORT if language == "yaml" else small)
            continue
        assert language == "bash"
        for line in text.splitlines():
            command = line.split("#")[0].replace("epoch_12", "epoch_2")
            done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            num_commands += 1
    assert num_commands == 6
    settled = Path("runs/mine/config.yaml").read_text()
    assert "schedule: multi_step" in settled, "as student.py says"
    from mmdet.apis import init_detector

    for config, checkpoint in (("runs/mine/student.py", "runs/mine/student.pth"), ("student.py", "student.pth")):
        init_detector(config, checkpoint, device="cpu")
