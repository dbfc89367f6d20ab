"""The store as recipes and commands see it: with every kind of reference that this installation can resolve."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nacre.errors import UsageError
from nacre.lineage.store import Resolved, Store


def open_store(root: Path | str | None = None, *, fetch: bool = False) -> Store:
    """The store at `root` (default: `$NACRE_HOME`, else `.nacre`), with `data:NAME`, `model:NAME` and addresses of
    served models (`http://HOST/v1#MODEL`) understood.

    Raises UsageError where `root` is a file.
    With `fetch` a catalogued model that is absent is downloaded when it is first resolved.
    """
    store = Store(Path(root).expanduser() if root is not None else None)
    if store.root.exists() and not store.root.is_dir():
        raise UsageError(f"the store {store.root} is a file", remedy="give a folder: --store DIR, or NACRE_HOME")
    store.register("data", _data)
    store.register("model", _fetched_model if fetch else _present_model)
    for scheme in ("http", "https"):
        store.register(scheme, partial(_served, store.root, scheme))
    return store


def _data(rest: str) -> Resolved:
    from nacre.data.catalogue import resolve

    return resolve(rest)


def _present_model(rest: str) -> Resolved:
    from nacre.data.models import resolve

    return resolve(rest, fetch=False)


def _fetched_model(rest: str) -> Resolved:
    from nacre.data.models import resolve

    return resolve(rest)


def _served(root: Path, scheme: str, rest: str) -> Resolved:
    from nacre.engine.address import engine_folder

    address = f"{scheme}:{rest}"
    return Resolved(address, engine_folder(root / "engines", address))
