"""Reports as one HTML file that opens anywhere: no network, no server, no other file."""

from switchover.html.chart import Chart
from switchover.html.document import Document, Section
from switchover.html.ranking import of_table
from switchover.html.timeline import of_report

__all__ = ["Chart", "Document", "Section", "of_report", "of_table"]
