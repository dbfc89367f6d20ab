"""The report of an audit: one HTML file that opens offline."""

from nacre.lifecycle.audit.report.page import render

__all__ = ["render"]
