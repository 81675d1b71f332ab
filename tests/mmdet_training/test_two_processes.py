"""mmengine's Runner under torchrun, two processes on CPUs: the weights of one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

TERMS = """
terms:
  - {source: feature_map, distance: l2, weight: {relative: 5}}
  - {source: class_logits, transforms: [sigmoid], distance: binary_cross_entropy, weight: {absolute: 0.5}}
"""
OWN = """
train_dataloader = dict(batch_size=BATCH)
train_cfg = dict(val_interval=9)
optim_wrapper = dict(_delete_=True, optimizer=dict(type="SGD", lr=0.05, momentum=0.9))
load_from = "START"
"""
ON_CPU = """
custom_imports = dict(imports=["autokd.mmdet_training", "autokd.mmdet_training.on_cpu"])
model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
"""


def trained(where: Path, name: str, processes: int) -> dict[str, torch.Tensor]:
    """Run MMDetection's own script as torchrun's processes, or as one; the last checkpoint's weights."""
    import mmdet

    script = Path(mmdet.__file__).parent / ".mim" / "tools" / "train.py"
    text = (where / "distilled.py").read_text() + OWN.replace("START", str(where / "start.pth"))
    text = text.replace("BATCH", str(4 // processes)) + (ON_CPU if processes > 1 else "")
    (where / f"{name}.py").write_text(text)
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(torchrun if processes > 1 else [])]
    command += ["-m", "autokd.mmcv_ops", str(script), str(where / f"{name}.py"), "--work-dir", str(where / name)]
    command += ["--launcher", "pytorch"] if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, env=environment, cwd=where)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return torch.load(where / name / "epoch_2.pth", map_location="cpu", weights_only=False)["state_dict"]


def test_two_processes_train_the_weights_of_one(folder):
    """Each process has half of every batch; a relative weight is measured on both halves.

    Norms are frozen or of groups, so that no statistics of a batch enter. FCOS divides its losses by the positives of
    all processes; some heads of MMDetection divide by their own, or clamp the mean, and differ of themselves. So sums
    of float32 in another order are all that differs, and the tolerance is a thousandth of the greatest movement.
    """
    from autokd.config import MmdetDetector
    from autokd.detectors.mmdet import build_mmdet_model

    wide = {"model.neck.out_channels": 24, "model.bbox_head.in_channels": 24}
    where = folder("fcos", "fcos", terms=TERMS, options=wide)
    with (where / "student.py").open("a") as file:
        file.write('model["backbone"] = dict(norm_eval=True)\n')
    torch.manual_seed(2)
    start = build_mmdet_model(MmdetDetector(framework="mmdet", config=str(where / "student.py")), 6).state_dict()
    torch.save({"state_dict": start}, where / "start.pth")
    one, two = trained(where, "one", 1), trained(where, "two", 2)
    assert one.keys() == two.keys()
    moved = max(
        float((one[f"student.{name}"] - value).abs().max()) for name, value in start.items() if "weight" in name
    )
    assert moved > 0.01
    assert "distiller.adapters.0.weight" in one
    for name, value in one.items():
        if value.is_floating_point():
            differing = float((two[name] - value).abs().max())
            assert differing <= 1e-3 * moved, name


def test_nobody_is_met_where_torchrun_started_nothing(monkeypatch):
    from torch import distributed

    from autokd.mmdet_training.on_cpu import meet_on_cpu

    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert meet_on_cpu() is False
    assert not distributed.is_initialized()
