"""A run as a whole: the search, the finalists' race, the full trainings, the results.

``run`` leads through the phases, which ``phases`` holds as generators of drivers; ``context`` is shared by them.

    driver, trials, reward     the search as a driver, its trials, their value
    promotion                  a good student joins the teachers
    finalists, race, noise     the best trials, compared over seeds by a paired test
    distillers, fidelity       distillers that are trained in full; rank correlation with the proxy
    phased_driver              fixed lists of jobs, and drivers one after another
    resume, contents           continuation of an interrupted run
    planning, bill             forecast of disk, memory, hours and money
    finish, reporting          the files that a run writes
    observer, evaluation       progress; AP of given weights
"""

from autokd.study.bill import Bill, Phase
from autokd.study.driver import SearchDriver, SearchPlan
from autokd.study.evaluation import evaluate_weights
from autokd.study.observer import Observer, SilentObserver, TrialNews
from autokd.study.planning import make_plan
from autokd.study.reporting import write_run_report
from autokd.study.reward import Reward
from autokd.study.run import run_distill, run_search

__all__ = [
    "Bill",
    "Observer",
    "Phase",
    "Reward",
    "SearchDriver",
    "SearchPlan",
    "SilentObserver",
    "TrialNews",
    "evaluate_weights",
    "make_plan",
    "run_distill",
    "run_search",
    "write_run_report",
]
