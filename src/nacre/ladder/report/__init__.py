"""The ladder's report: one HTML file that opens offline, and the table for a terminal."""

from nacre.ladder.report.page import render, write

__all__ = ["render", "write"]
