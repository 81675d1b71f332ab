"""Generated images, a plain training config, a teacher's checkpoint and a distiller for trainings of mmengine."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.runner_cases import CLASSES, CONFIGS, DISTILLED, TRAINING

collect_ignore_glob = [] if importlib.util.find_spec("mmengine") else ["test_*.py"]
torch.set_num_threads(1)

TERMS = """
terms:
  - {source: feature_map, transforms: [standardize], distance: l2, weight: {relative: 20}}
  - {source: class_logits, transforms: [sigmoid], distance: binary_cross_entropy, weight: {relative: 5}}
"""


@pytest.fixture(scope="session")
def shapes(tmp_path_factory) -> Path:
    from autokd.config import ShapesData
    from autokd.data.shapes import write_shapes

    data = ShapesData(format="shapes", image_size_px=(64, 96), num_train=10, num_val=6, num_test=6)
    return write_shapes(data, tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def folder(tmp_path, shapes) -> Callable[..., Path]:
    """Write student.py, distilled.py, teacher.pth and best_distiller.yaml; return the folder."""

    def write(student="gfl", teacher="gfl", flip=0.0, terms=TERMS, head="bbox_head", **settings: Any) -> Path:
        from autokd.config import MmdetDetector
        from autokd.detectors.mmdet import build_mmdet_model

        head = f"{head}=dict(num_classes=6)" + ")" * settings.pop("closing", 0)
        text = TRAINING.format(model=CONFIGS / f"{student}.py", classes=CLASSES, root=shapes, flip=flip, head=head)
        (tmp_path / "student.py").write_text(text)
        torch.manual_seed(1)
        config = str(CONFIGS / f"{teacher}.py")
        options = settings.get("options", {})
        model = build_mmdet_model(MmdetDetector(framework="mmdet", config=config, options=options), len(CLASSES))
        about = {"dataset_meta": {"classes": settings.pop("names", CLASSES)}}
        torch.save({"state_dict": model.state_dict(), "meta": about}, tmp_path / "teacher.pth")
        (tmp_path / "best_distiller.yaml").write_text(terms)
        section = {"config": config, "checkpoint": str(tmp_path / "teacher.pth")} | settings
        distilled = DISTILLED.format(teacher=section, distiller=tmp_path / "best_distiller.yaml")
        (tmp_path / "distilled.py").write_text(distilled)
        return tmp_path

    return write


@pytest.fixture
def runner_of(folder) -> Callable[..., Any]:
    """A Runner of distilled.py in ``folder``, its settings changed by dotted names."""

    def make(where: Path, name: str = "work", file: str = "distilled.py", **changes: Any) -> Any:
        import copy

        from mmengine import Config
        from mmengine.logging import MessageHub
        from mmengine.runner import Runner

        from autokd.mmcv_ops import provide_mmcv_ops

        provide_mmcv_ops()
        config = Config.fromfile(str(where / file))
        config.work_dir = str(where / name)
        config.merge_from_dict(copy.deepcopy({key.replace("__", "."): value for key, value in changes.items()}))
        config.experiment_name = f"{where.name}_{name}"
        MessageHub._instance_dict.clear()
        return Runner.from_cfg(config)

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "mmdet_training":
            for library in ("mmdet", "mmcv", "mmengine", "torch"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:::{library}"))
