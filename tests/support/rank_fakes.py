"""Evaluators whose ranks differ: all exchange a number, and the second one may fail before."""

from __future__ import annotations

import os
from collections.abc import Generator

import torch
import torch.distributed as dist

from autokd.errors import NonFiniteError
from autokd.outcomes import Evaluator, Job, Outcome, Report, WorkerResources


class RankEvaluator:
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


def of_ranks(resources: WorkerResources) -> Evaluator:
    return RankEvaluator()
