"""Stage 4 of the audit: what two data sets share, whose voice is in them, and whether a model was trained on one."""

from nacre.lifecycle.audit.data.stage import compare

__all__ = ["compare"]
