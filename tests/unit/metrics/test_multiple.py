"""Corrections for several tests."""

from __future__ import annotations

import pytest

from nacre.metrics.multiple import holm


def test_holm_steps_down_and_never_reverses_an_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
