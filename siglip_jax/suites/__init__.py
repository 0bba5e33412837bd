"""Suites: a model measured on many data sets, beside what is published.

`run_suite` measures, and `table` shows it.
"""

from siglip_jax.suites.catalogue import SUITES, TASKS, find_suite
from siglip_jax.suites.comparison import Row, table
from siglip_jax.suites.published_values import ORIGINS, Origin, Published, published
from siglip_jax.suites.result import TaskResult
from siglip_jax.suites.run import SuiteResult, run_suite
from siglip_jax.suites.task import Suite, Task

__all__ = [
    "ORIGINS",
    "SUITES",
    "TASKS",
    "Origin",
    "Published",
    "Row",
    "Suite",
    "SuiteResult",
    "Task",
    "TaskResult",
    "find_suite",
    "published",
    "run_suite",
    "table",
]
