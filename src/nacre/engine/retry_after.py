"""How long an upstream asks to be left alone."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds_to_wait(said: str | None) -> float | None:
    """Seconds of a Retry-After (RFC 9110, section 10.2.3: seconds or a date), at least 0; None where it says none."""
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        return _until(said)
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until(said: str) -> float | None:
    try:
        when = parsedate_to_datetime(said)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max((when - datetime.now(UTC)).total_seconds(), 0.0)
