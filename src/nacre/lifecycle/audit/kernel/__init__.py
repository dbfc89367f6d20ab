"""Stage 1 of the audit: whose kernel is it? Roles, canonical graph and hashes from headers alone."""

from nacre.lifecycle.audit.kernel.canonicalise import canonicalise
from nacre.lifecycle.audit.kernel.compare import compare
from nacre.lifecycle.audit.kernel.group import group

__all__ = ["canonicalise", "compare", "group"]
