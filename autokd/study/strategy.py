"""The default strategy: a budget of full trainings, spent on rungs of continued trainings and on a race in full.

1. Candidates (the portfolio first, then the tree search) train on the full recipe's own schedule and are judged after a
   tenth of it: these are the trials of the study.
2. The best third goes on from its checkpoints to a third of the training, the best half of those to the end.
3. Those race over paired seeds, "none" among them; a promoted training that reached the end is the first of its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autokd.jobs import Job, Outcome, make_rung_job
from autokd.space import PartSpace
from autokd.study.budget import BudgetSplit
from autokd.study.finalists import Finalist, best_trials
from autokd.study.full_race import FullRace, race_words
from autokd.study.phased_driver import Phases
from autokd.study.reward import Reward, reference_curve
from autokd.study.stages import RunJobs
from autokd.training import CHECKPOINT_ARTIFACT

LIKE = "{} of {} candidates go on to epoch {} of {}"


@dataclass(frozen=True)
class Strategy:
    """What the phases of a budgeted search share.

    Args:
        run_jobs: runs a list of jobs, or answers them from the database.
        say: tells the user a line.
        split: trainings that the budget pays.
        seed: seed of the candidates' trainings.
        space: the space that is searched, which knows which candidates are single presets.
    """

    run_jobs: RunJobs
    say: object
    split: BudgetSplit
    seed: int
    space: object
