"""An evaluator for several ranks: all of them sum a number, and the second one may fail before that."""

from __future__ import annotations

import os
from collections.abc import Generator

import torch
import torch.distributed as dist

from autokd.errors import NonFiniteError
from autokd.jobs import Evaluator, Job, Outcome, Report, WorkerResources


class RankEvaluator:
    """Does what a job's id says: "ok"; "die" and "bug" on the second rank alone; "nan" on every rank."""

    def evaluate(self, job: Job) -> Generator[Report, None, Outcome]:
        what = job.id.split(" ")[0]
        yield Report(job.id, 1, {"loss": 1.0})
        if dist.get_rank() == 1 and what == "die":
            os._exit(7)
        if dist.get_rank() == 1 and what == "bug":
            raise KeyError("surprise")
        if what == "nan":
            raise NonFiniteError("task is nan")
        ranks = torch.tensor(float(dist.get_rank() + 1))
        dist.all_reduce(ranks)
        yield Report(job.id, 2, {"loss": 0.5})
        return Outcome(job.id, "finished", {"sum of ranks": float(ranks), "rank": dist.get_rank()})


def rank_evaluator(resources: WorkerResources) -> Evaluator:
    """Return a ``RankEvaluator``: the factory for ``Runtime.run``."""
    return RankEvaluator()
