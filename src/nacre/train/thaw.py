"""Gradual unfreezing: the top is trained first, and one more layer below it every so many steps.

Howard and Ruder 2018, "Universal language model fine-tuning", section 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from nacre.train.optim import Layered, depths, parents


class Thaw:
    """What of `trained` (parameters by name) is trained at a step: a function of the step and nothing else.

    The first group is what stands above the last numbered layer (heads, the last norm), then one layer after the
    other, then what stands below the first.
    """

    def __init__(self, kernel: Layered, trained: Mapping[str, Tensor], every: int) -> None:
        known, self.every = depths(kernel), every
        parameters: Mapping[str, nn.Parameter] = dict(kernel.named_parameters())
        found: dict[int, list[nn.Parameter]] = {}
        for name in trained:
            owner = next((prefix for prefix in parents(name) if prefix in known), None)
            depth = max(known.values(), default=0) if owner is None else known[owner]
            found.setdefault(depth, []).append(parameters[name])
        self.groups = [found[depth] for depth in sorted(found, reverse=True)]

    def at(self, step: int) -> int:
        """Leaves what step `step` (0-based) trains as trainable; how many groups that are."""
        open_ = min(len(self.groups), 1 + step // self.every)
        for number, group in enumerate(self.groups):
            for parameter in group:
                parameter.requires_grad_(number < open_)
        return open_
