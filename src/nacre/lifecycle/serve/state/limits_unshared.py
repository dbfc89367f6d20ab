"""Limits where several workers run and nothing is shared: nobody is held to less than a whole limit in secret.

Each worker would count for itself, and a key could use as many times its limit as there are workers. So a gateway does
not start with several workers while a key has limits, its page makes no such key, and one that is made elsewhere
afterwards is refused.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from nacre.errors import ConfigError
from nacre.lifecycle.serve.config import StateConfig
from nacre.lifecycle.serve.contract import Allowance, Caller, Refusal
from nacre.lifecycle.serve.state.keys import Key
from nacre.lifecycle.serve.state.limits import is_unlimited

_REMEDY = "state: {limits: redis, redis_variable: REDIS_URL}, or one worker"


def refuse_unshared(keys: Sequence[Key], workers: int) -> None:
    """Raises ConfigError where a key that may be used has limits or a budget."""
    now = time.time()
    limited = [one.caller.name for one in keys if one.state(now) == "active" and not is_unlimited(one.caller.allowance)]
    if limited:
        more = f" and {len(limited) - 1} more" if len(limited) > 1 else ""
        raise ConfigError(
            f"{workers} workers do not share the limits of key {limited[0]!r}{more}: state.limits is memory",
            remedy=_REMEDY,
        )


def refuse_limits(allowance: Allowance, state: StateConfig, workers: int) -> None:
    """Raises ConfigError for limits or a budget that a gateway of this config would not hold."""
    if workers > 1 and state.limits == "memory" and not is_unlimited(allowance):
        raise ConfigError(
            f"{workers} workers do not share limits (state.limits is memory): requests with this key would be refused",
            remedy=f"{_REMEDY}; or leave the limits and the budget out",
        )


class _Nothing:
    """What a call without limits holds."""

    async def settle(self, tokens: int | None, money: float | None) -> None:
        """Nothing was held."""


class UnsharedLimits:
    """The contract's `Limits` for keys without any; raises Refusal (503) for a key that has some."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    async def reserve(self, caller: Caller, tokens: int, money: float | None) -> _Nothing:
        if is_unlimited(caller.allowance):
            return _Nothing()
        raise Refusal(
            503, f"this key has limits, which {self._workers} workers do not share: the operator sets {_REMEDY}",
            kind="server_error", code="limits_not_shared",
        )  # fmt: skip

    async def close(self) -> None:
        """Nothing is open."""
