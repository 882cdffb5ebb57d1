"""Comparisons: guests x strategies x policies x codecs x links x worlds, repeated, with intervals.

>>> from switchover import comparison
>>> comparison.METRICS["blackout"].unit
's'
"""

from switchover.comparison.bench import compare
from switchover.comparison.case import Case
from switchover.comparison.estimate import Estimate
from switchover.comparison.folder import Folder
from switchover.comparison.gate import Finding, Gate, gate
from switchover.comparison.metric import METRICS, Metric
from switchover.comparison.run import Run
from switchover.comparison.source import Source
from switchover.comparison.table import Row, Table

__all__ = [
    "METRICS",
    "Case",
    "Estimate",
    "Finding",
    "Folder",
    "Gate",
    "Metric",
    "Row",
    "Run",
    "Source",
    "Table",
    "compare",
    "gate",
]
