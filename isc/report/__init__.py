"""The report on a run: one page that opens from disk, and the comparison of two runs."""

from isc.report.comparison import Comparison, OtherRun, compare, read_run
from isc.report.judged import apart
from isc.report.page import write_report
from isc.report.pictures import Evidence, Pictures

__all__ = [
    "Comparison",
    "Evidence",
    "OtherRun",
    "Pictures",
    "apart",
    "compare",
    "read_run",
    "write_report",
]
