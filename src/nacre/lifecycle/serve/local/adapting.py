"""Several adapters over one base in memory, each a model of its own to the gateway.

All of them work in the base's thread, one piece of work after the other in the order of asking: one round of texts, or
one batch. Each has its own queue, slots and KV cache, so that no batch mixes adapters, and none waits for more than one
piece of work of each other. Before each the kernel is switched, which costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from nacre.errors import CheckpointError
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.local.worker import Turn, Worker
from nacre.lineage.digest import digest_folder
from nacre.lineage.store import Store

if TYPE_CHECKING:
    from nacre.kernel.adapters.switch import Switch

T = TypeVar("T")
_CONFIG = "adapter_config.json"


class Adapters:
    """The adapters of the model `name`: by name what was tuned, and the folder of the adapter itself."""

    def __init__(self, name: str, config: LocalConfig, store: Store) -> None:
        self.name, self.thread = name, Worker(name)
        self._folders: Mapping[str, tuple[Path, Path]] = {
            one: self._found(one, ref, store) for one, ref in config.adapters.items()
        }
        self._switch: Switch | None = None
        self._views: dict[str, object] = {}

    def worker(self, adapter: str = "") -> Worker:
        """The thread, in which the kernel is the base with `adapter`; for '' the base, which ends the thread."""
        return Turn(self.thread, lambda: self._to(adapter), owns=not adapter)

    def over(self, base: T) -> T:
        """`base`, an engine or a classifier just opened, with all adapters read. In the thread."""
        from nacre.engine.native import Native
        from nacre.kernel.adapters.switch import Switch
        from nacre.lifecycle.serve.local.solved import ClassifierSolver

        if not isinstance(base, Native | ClassifierSolver):
            raise CheckpointError(
                f"{self.name} is no kernel of ours: adapters cannot be switched over it",
                remedy="merge each with PEFT (merge_and_unload), and serve it as a model of its own",
            )
        switch = Switch(base.kernel if isinstance(base, Native) else base.model.kernel)
        for one, (tuned, folder) in self._folders.items():
            try:
                switch.load(one, folder)
                self._views[one] = base.adapted(tuned, f"adapter:{digest_folder(folder)}")
            except CheckpointError as error:
                raise CheckpointError(
                    f"the adapter {one!r} of {self.name} ({folder}): {error.message}", remedy=error.remedy
                ) from error
        switch.to("")
        self._switch = switch
        return base

    def view(self, adapter: str, kind: type[T]) -> T:
        """The base with one adapter, as `over` made it."""
        found = self._views[adapter]
        assert isinstance(found, kind)
        return found

    def _to(self, adapter: str) -> None:
        if self._switch is not None:
            self._switch.to(adapter)

    def _found(self, adapter: str, ref: str, store: Store) -> tuple[Path, Path]:
        found = store.resolve(ref)
        store.verify(found)
        for folder in (found.path, found.path / "adapter"):
            if (folder / _CONFIG).is_file():
                return found.path, folder
        raise CheckpointError(
            f"the adapter {adapter!r} of {self.name}: {ref} holds no {_CONFIG}",
            remedy="give a folder that PEFT or Nacre wrote, or an artifact whose adapter/ it is",
        )
