"""A whole search: ``run`` leads through its phases, ``driver`` asks and tells, ``reward`` says what a trial is worth.

``batch`` runs lists of jobs, ``finalists`` and ``entries`` say which, ``race`` lets finalists fall one by one by what
``noise`` says, ``fidelity`` judges the proxy, ``ledger`` remembers for ``--resume``, ``handover`` and ``reporting``
write what the user leaves with.
"""

from autokd.study.driver import SearchDriver, SearchPlan
from autokd.study.evaluation import evaluate_weights
from autokd.study.observer import Observer, SilentObserver, TrialNews
from autokd.study.reporting import write_run_report
from autokd.study.reward import Reward
from autokd.study.run import run_distill, run_search

__all__ = [
    "Observer",
    "Reward",
    "SearchDriver",
    "SearchPlan",
    "SilentObserver",
    "TrialNews",
    "evaluate_weights",
    "run_distill",
    "run_search",
    "write_run_report",
]
