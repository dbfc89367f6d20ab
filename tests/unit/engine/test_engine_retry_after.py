from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from nacre.engine.retry_after import seconds_to_wait


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), ("1.5", 1.5), ("-3", 0.0), ("0", 0.0)])
def test_seconds(said: str, seconds: float) -> None:
    assert seconds_to_wait(said) == seconds


@pytest.mark.parametrize("said", [None, "nan", "inf", "-inf", "soon", "", "Tue, 99 Nov 2026 25:00:00 GMT"])
def test_what_says_no_time(said: str | None) -> None:
    assert seconds_to_wait(said) is None


def test_a_date() -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    wait = seconds_to_wait(format_datetime(later, usegmt=True))
    assert wait is not None
    assert 3500 < wait <= 3600
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert seconds_to_wait("Wed, 21 Oct 2015 07:28:00") == 0.0
