"""Runtimes, which run jobs: in this process (``workers: 0``), on Ray (locally or on a cluster), or on a virtual clock.

``contract`` has the interface, ``containment`` turns whatever a training raises into an outcome. Only the package
``ray`` imports Ray, and only when a runtime of it is made.
"""

from autokd.runtime.choose import make_runtime
from autokd.runtime.containment import run_guarded
from autokd.runtime.contract import WAIT, Driver, Runtime, Wait
from autokd.runtime.local import InProcessRuntime
from autokd.runtime.ray.submission import JobServer, follow_job, job_status, stop_job, submit_job
from autokd.runtime.simulated import SimulatedRuntime

__all__ = [
    "WAIT",
    "Driver",
    "InProcessRuntime",
    "JobServer",
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
