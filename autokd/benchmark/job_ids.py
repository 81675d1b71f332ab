"""Ids of recorded trainings: recipe, distiller and seed in one word that is also a file name."""

from __future__ import annotations

from autokd.config import NO_DISTILLATION
from autokd.outcomes import Job, RecipeName
from autokd.spec import DistillerSpec


def job_id(recipe: RecipeName, distiller: str, seed: int) -> str:
    """Return the id of one training.

    Args:
        recipe: recipe of the training.
        distiller: digest or name of the distiller; "none" for a training without distillation.
        seed: training seed.

    Returns:
        Id that ``split_job_id`` takes apart.
    """
    return f"{recipe}-{distiller}-s{seed}"


def split_job_id(text: str) -> tuple[RecipeName, str, int]:
    """Return recipe, distiller and seed of an id that ``job_id`` made.

    Raises:
        ValueError: if the text is no such id.
    """
    recipe, _, rest = text.partition("-")
    # The name of a distiller may hold hyphens, so the seed is taken from the right.
    distiller, mark, seed = rest.rpartition("-s")
    if recipe not in ("proxy", "full") or not mark:
        raise ValueError(f"{text!r} is no id of a training; an id looks like 'full-none-s0'.")
    return ("proxy" if recipe == "proxy" else "full"), distiller, int(seed)


def job_of(spec: DistillerSpec | None, recipe: RecipeName, seed: int) -> Job:
    """Return the job that trains one distiller (None: no distillation), named by its digest."""
    return Job(job_id(recipe, NO_DISTILLATION if spec is None else spec.digest, seed), spec, recipe, seed)
