"""What holds for every test: one thread, no network beyond loopback, stores and caches of its own."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS / "kit"))

# Before any library is imported: under contention two threads are slower than one, and no library may look online.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"


# A runner in the background may ignore Ctrl-C, and the programs that tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def shared_data_folder() -> Path:
    """Where the shared data sets are, when they are."""
    return Path(os.environ.get("NACRE_DATA") or TESTS.parent.parent / "shared" / "data")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = shared_data_folder()
    if folder.is_dir():
        return
    absent = pytest.mark.skip(reason=f"no shared data at {folder} (set NACRE_DATA)")
    for item in items:
        if item.get_closest_marker("shared_data"):
            item.add_marker(absent)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the shared data sets; tests that use it carry the marker `shared_data`."""
    return shared_data_folder()


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("nacre")
    monkeypatch.setenv("NACRE_HOME", str(home / "home"))
    monkeypatch.setenv("NACRE_CACHE", str(home / "cache"))


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_network() -> Iterator[None]:
    """Connections beyond loopback fail loudly instead of making a test depend on the outside."""
    with pytest.MonkeyPatch.context() as patch:
        connect = socket.socket.connect

        def guarded(self: socket.socket, address: object) -> None:
            host = address[0] if isinstance(address, tuple) else None
            if host is not None and host not in ("127.0.0.1", "::1", "localhost"):
                raise OSError(f"a test tried to connect to {address}")
            connect(self, address)  # type: ignore[arg-type]

        patch.setattr(socket.socket, "connect", guarded)
        yield


pytest_plugins = ["toy_stages"]
