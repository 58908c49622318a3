"""What a scaling measurement says: a report that explains itself.

``analyse`` makes a value of it (:class:`~hpctrain.bench.report.result.Report`), ``gate`` refuses
what cannot be true, ``findings`` says it in words; ``markdown``, ``page`` and ``summary`` show it.
"""

from __future__ import annotations

from hpctrain.bench.report.summary import print_summary
from hpctrain.bench.report.write import read_report, write_report

__all__ = ["print_summary", "read_report", "write_report"]
