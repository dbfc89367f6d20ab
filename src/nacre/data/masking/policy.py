"""What becomes of each kind of personal data on a route: masked, refused, or let through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from nacre.data.masking.kinds import KINDS, chosen
from nacre.errors import ConfigError, closest

Action = Literal["mask", "block", "allow"]


@dataclass(frozen=True)
class Policy:
    """`default` holds for every kind that `kinds` does not name. `opaque`: what becomes of what nobody can look into
    (images, audio, files, prompts given as token ids): let through and counted, or refused with `block`.
    """

    default: Action = "mask"
    kinds: Mapping[str, Action] = field(default_factory=dict)
    opaque: Literal["allow", "block"] = "allow"
    _by_action: Mapping[Action, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        chosen(self.kinds)
        for where, action in (("default", self.default), *self.kinds.items()):
            if action not in get_args(Action):
                raise ConfigError(
                    f"masking of {where}: {action!r} is no action", remedy=closest(str(action), get_args(Action))
                )
        if self.opaque not in ("allow", "block"):
            raise ConfigError(f"masking of opaque parts: {self.opaque!r} is no action", remedy="allow or block")
        by_action = {one: frozenset(kind for kind in KINDS if self.action(kind) == one) for one in get_args(Action)}
        object.__setattr__(self, "_by_action", by_action)  # asked several times for each request

    def action(self, kind: str) -> Action:
        """What becomes of this kind."""
        return self.kinds.get(kind, self.default)

    def of(self, action: Action) -> frozenset[str]:
        """The kinds that this action is taken on."""
        return self._by_action[action]
