"""The store as recipes and commands see it: with every kind of reference that this installation can resolve."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from nacre.lineage.store import Resolved, Store

# scheme -> "module:function" that resolves the rest of such a reference
SCHEMES: dict[str, str] = {"data": "nacre.data.catalogue:resolve"}


def open_store(root: Path | str | None = None) -> Store:
    """The store at `root` (default: `$NACRE_HOME`, else `.nacre`), with `data:NAME` understood."""
    store = Store(Path(root).expanduser() if root is not None else None)
    for scheme, target in SCHEMES.items():
        store.register(scheme, _Lazily(target))
    return store


class _Lazily:
    def __init__(self, target: str) -> None:
        self._module, _, self._function = target.partition(":")

    def __call__(self, rest: str) -> Resolved:
        found = getattr(import_module(self._module), self._function)(rest)
        assert isinstance(found, Resolved)  # the contract of a resolver
        return found
