"""`nacre page` as a process: its address, its state, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "nacre.cli.main", "page", "--no-browser"]


@contextmanager
def opened(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """A running page on a free port, its address, and what it said before."""
    environment = os.environ | {"NACRE_HOME": str(folder / "elsewhere")}
    process = subprocess.Popen([*COMMAND, "--port", "0", *words], env=environment, stderr=subprocess.PIPE, text=True)
    said: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "the page is at" in line:
                yield process, line.split(" at ")[1].split("/page/")[0], said
                return
            said.append(line)
        raise AssertionError("".join(said))
    finally:
        process.kill()
        process.communicate(timeout=20)


def rung(store: Path, name: str, kind: str) -> None:
    folder = store / "store" / name / "1"
    folder.mkdir(parents=True)
    manifest = {"tier": "tune", "solver": "s", "task": "desk", "kind": kind, "language": "en", "labels": []}
    (folder / "rung.json").write_text(json.dumps(manifest))
    record = {"name": name, "version": 1, "kind": "rung", "digest": "", "basis": "declared"}
    (folder / "lineage.json").write_text(json.dumps(record))


def test_it_lists_the_store_keeps_its_state_there_and_ends_when_told(tmp_path: Path) -> None:
    store = tmp_path / "store of ours"
    rung(store, "desk/tune", "classify")
    rung(store, "desk/words", "tag")
    with opened(tmp_path, "--store", str(store)) as (process, url, said):
        assert [line for line in said if "desk/words@1" in line and "tag" in line], said
        with urllib.request.urlopen(f"{url}/readyz", timeout=10) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
            assert [one["id"] for one in json.load(answer)["data"]] == ["desk/tune"]
        with urllib.request.urlopen(f"{url}/page/chat", timeout=10) as answer:
            assert b"desk/tune@1" in answer.read()
        assert (store / "serve" / "gateway.db").is_file()
        assert (store / "serve" / "page.secret").is_file()
        assert not (tmp_path / "elsewhere").exists()
        maps = Path(f"/proc/{process.pid}/maps")
        assert not maps.exists() or "libtorch" not in maps.read_text(), "nothing was asked: torch has no business here"
        port = url.rpartition(":")[2]
        second = subprocess.run(
            [*COMMAND, "--store", str(store), "--port", port], capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 2
        assert second.stderr.count("error:") == 1
        assert "in use" in second.stderr
        assert "Traceback" not in second.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
