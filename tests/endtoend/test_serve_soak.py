"""The soak of the gateway, for fifteen seconds: the script that runs for minutes by hand, and its verdict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_fifteen_seconds_of_faults_leave_the_books_right(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/gateway_soak.py", "--minutes", "0.25", "--clients", "50", "--seed", "7"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert '"wrong": 0' in ended.stdout
