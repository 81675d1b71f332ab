"""Two processes learn from two teachers as one does: the same losses, shares and weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autokd.config import RunConfig, complete_recipes
from autokd.presets import load_preset
from autokd.training.assets import TrainingAssets
from autokd.training.jobs.build_distillation import build_distillation
from autokd.training.loop import train
from autokd.training.shards import RankGroup
from tests.support.rank_processes import in_ranks
from tests.support.training_samples import make_config


def train_with_two_teachers(cache: Path, factors: str) -> dict[str, Any]:
    tiny = make_config()
    other = tiny.teacher.model_copy(update={"fpn_channels": 24})
    data = tiny.model_dump() | {"teacher": [tiny.teacher, other], "teacher_weights": factors}
    assets = TrainingAssets(complete_recipes(RunConfig.model_validate(data)), cache, torch.device("cpu"))
    recipe = assets.config.full
    student = assets.students.new(0)
    loader = replace(assets.data.training_loader("full"), ranks=RankGroup.current())
    distillation = build_distillation(load_preset("fitnet"), student, loader, assets, "full", 0)
    losses = [dict(result.losses) for result in train(student, loader, recipe, seed=0, distillation=distillation)]
    return {"losses": losses, "shares": distillation.distiller.shares_T.tolist(), "weights": student.plain_state_dict()}


@pytest.mark.slow
@pytest.mark.parametrize("factors", ["gap", "gradient"])
def test_two_ranks_share_the_loss_between_teachers_as_one_process_does(tiny_cache, tmp_path, factors):
    """1e-4: what rounding grows to in four steps of AdamW."""
    alone = train_with_two_teachers(tiny_cache, factors)
    ranks = in_ranks(2, train_with_two_teachers, tmp_path / "ranks", tiny_cache, factors)
    assert abs(alone["shares"][0] - 0.5) > 1e-3
    for rank in ranks:
        assert rank["shares"] == pytest.approx(alone["shares"], rel=1e-4)
        for ours, theirs in zip(rank["losses"], alone["losses"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)
    first, second = (rank["weights"] for rank in ranks)
    assert all(torch.equal(value, second[name]) for name, value in first.items())
