"""Runs any streamparse project's topologies without a JVM.

One process a task, speaking Storm's real multilang protocol; see docs/localstorm.md.
"""

from localstorm.errors import CrashLoopError, LocalStormError
from localstorm.plan import ComponentPlan, InputPlan, Plan, Request, StreamPlan, load
from localstorm.runner import Runner, run
from localstorm.settings import Settings
from localstorm.stats import ComponentStats, Snapshot, TaskStats, read_file

__all__ = [
    "ComponentPlan",
    "ComponentStats",
    "CrashLoopError",
    "InputPlan",
    "LocalStormError",
    "Plan",
    "Request",
    "Runner",
    "Settings",
    "Snapshot",
    "StreamPlan",
    "TaskStats",
    "load",
    "read_file",
    "run",
]
