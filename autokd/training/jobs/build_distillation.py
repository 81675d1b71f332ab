"""The distillation of a job: its distiller, built for the pair, and the teachers' taps."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch

from autokd.detectors import Detector
from autokd.distill import build_distiller, build_ensemble
from autokd.jobs import RecipeName
from autokd.spec import DistillerSpec
from autokd.training.assets import TrainingAssets
from autokd.training.distillation import Distillation
from autokd.training.loader import Loader
from autokd.training.seeds import random_stream
from autokd.training.teacher.cache import SeveralTeachersTaps
from autokd.training.teacher.obtain import Teacher
from autokd.training.teacher.required_taps import student_taps, teacher_taps
from autokd.training.unlabeled import UnlabeledBatches, unlabeled_batches, unlabeled_images


def build_distillation(
    spec: DistillerSpec,
    student: Detector,
    loader: Loader,
    assets: TrainingAssets,
    recipe: RecipeName,
    seed: int,
    promoted: Teacher | None = None,
) -> Distillation:
    """Build the distiller of a spec for the student and the teachers of a run.

    Several teachers, a promoted student among them, have a distiller each and share the loss by ``teacher_weights``. If
    these are numbers, the promoted student gets their mean.

    Args:
        spec: the distiller's description.
        student: the student, which is left as it was, its mode and random numbers included.
        loader: the job's training images; the first one shows the shapes of taps.
        assets: teachers and their cached outputs.
        recipe: name of the job's recipe.
        seed: the distiller's initial weights depend on it alone.
        promoted: a student that teaches beside the teachers.

    Raises:
        DistillError: if the pair cannot be distilled so.
        SpecError: if the spec is not valid.
    """
    taps, wanted = student_taps(spec), teacher_taps(spec)
    sources = [*assets.teachers.all, *([promoted] if promoted is not None else [])]
    part = assets.shown_part(recipe, seed)
    teachers = tuple(assets.teachers.training_taps(recipe, wanted, teacher, part) for teacher in sources)
    # Channels and strides of taps are known only from a forward pass: of one image, the first that is cached.
    batch = next(iter(loader.of_pairs([[(0, 0) if part is None else part.pairs()[0]]])))
    was_training = student.training
    recalibrate_every = assets.data.recipe(recipe).recalibrate_every
    with random_stream(assets.device, seed, "distiller"):
        with torch.no_grad():
            # In eval mode, which leaves the norms' running statistics alone.
            outputs = student.eval()(batch.images_BCHW, taps=taps)
        student.train(was_training)
        num_classes = len(assets.data.full.train.classes)
        if len(teachers) == 1:
            shown = teachers[0](batch)
            distiller = build_distiller(spec, outputs, shown, num_classes, recalibrate_every).to(assets.device)
            find = partial(distiller.find_unlabeled_terms, outputs, shown)
            return Distillation(distiller, teachers[0], taps, _unlabeled(assets, recipe, sources, wanted, find))
        several, factors = SeveralTeachersTaps(teachers), assets.config.teacher_weights
        if promoted is not None and not isinstance(factors, str):
            factors = (*factors, math.fsum(factors) / len(factors))
        all_shown = several(batch)
        ensemble = build_ensemble(spec, outputs, all_shown, num_classes, factors, recalibrate_every)
        find = partial(ensemble.find_unlabeled_terms, outputs, all_shown)
        return Distillation(
            ensemble.to(assets.device), several, taps, _unlabeled(assets, recipe, sources, wanted, find)
        )


def _unlabeled(
    assets: TrainingAssets,
    recipe: RecipeName,
    teachers: Sequence[Teacher],
    taps: Collection[str],
    find_terms: Callable[[], Collection[str]],
) -> UnlabeledBatches | None:
    """Return the images without boxes, if there are some and a term reads no labels."""
    data = assets.config.data
    images = unlabeled_images(data, assets.data.of(recipe).train)
    if images is None or not find_terms():
        return None
    live = tuple(assets.teachers.live_taps(taps, teacher) for teacher in teachers)
    teacher = live[0] if len(live) == 1 else SeveralTeachersTaps(live)
    return unlabeled_batches(data, assets.data.recipe(recipe), images, teacher, assets.device)
