"""Runs jobs: in this process (``workers: 0``), on Ray Tune actors, locally or on a cluster, or on a virtual clock.

``contract`` says what a runtime promises, ``containment`` turns whatever a job raises into an outcome.
Ray is imported by the modules named ``ray_*`` alone, and only when they are used.
"""

from autokd.runtime.choose import make_runtime
from autokd.runtime.containment import run_guarded
from autokd.runtime.contract import WAIT, Driver, Runtime, Wait
from autokd.runtime.local import InProcessRuntime
from autokd.runtime.ray.jobs import follow_job, job_status, stop_job, submit_job
from autokd.runtime.simulated import SimulatedRuntime

__all__ = [
    "WAIT",
    "Driver",
    "InProcessRuntime",
    "Runtime",
    "SimulatedRuntime",
    "Wait",
    "run_guarded",
    "follow_job",
    "job_status",
    "make_runtime",
    "stop_job",
    "submit_job",
]
