"""One kernel in memory, as its base or as its base with one of several adapters: switched as a whole, at no cost.

What an adapter brings whole, such as the head of a classifier, is switched with it.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from nacre.errors import CheckpointError
from nacre.kernel.adapters import peft
from nacre.kernel.adapters.adapted import attached
from nacre.kernel.adapters.peft_files import check_base
from nacre.kernel.adapters.site import sites
from nacre.kernel.model import Kernel


class Switch:
    """The adapters of `kernel`, none of which acts at first. Not thread-safe; texts under way belong to one of them."""

    def __init__(self, kernel: Kernel) -> None:
        if attached(kernel):
            raise CheckpointError(
                "the base has an adapter of its own, which no other can share", remedy="name the model without it"
            )
        self.kernel, self._now = kernel, ""
        self._base: dict[str, Tensor] = {}  # the base's own parameters, where some adapter brings others
        self._whole: dict[str, dict[str, Tensor]] = {"": {}}

    def load(self, name: str, folder: Path) -> None:
        """Reads an adapter, which acts from now on. Raises CheckpointError for one of another base."""
        self.to("")
        whole = peft.replaced(self.kernel, folder)
        try:
            check_base(self.kernel, folder, whole)
        except CheckpointError as error:
            raise CheckpointError(error.message, remedy="give the model that it was made for as its base") from None
        for one in whole:
            parameter = self.kernel.get_parameter(one)
            self._base.setdefault(one, parameter.data)
            parameter.data = parameter.data.clone()  # which `load` writes into
        peft.load(self.kernel, folder, name=_inner(name))
        self.kernel.to(next(self.kernel.parameters()).device).eval().requires_grad_(False)
        self._whole[name] = {one: self.kernel.get_parameter(one).data for one in whole}
        self._now = name

    def to(self, name: str) -> None:
        """Lets the adapter `name` act and no other; none for ''."""
        if name == self._now:
            return
        for _, site in sites(self.kernel).values():
            site.active = {_inner(name): 1.0} if _inner(name) in site else {}
        for one, value in (self._base | self._whole[name]).items():
            self.kernel.get_parameter(one).data = value
        self._now = name


def _inner(name: str) -> str:
    return f"served-{name}"
