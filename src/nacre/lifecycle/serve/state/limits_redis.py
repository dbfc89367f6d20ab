"""Limits that several replicas share, in Redis: two scripts, each atomic, with the laws of `limits.py`.

Per key: a hash of one-second buckets, a hash of leases (what runs and what it holds) and a hash of what was spent in
the period. The clock is Redis's. A lease whose replica died ends after `lease_s` and is charged as it was estimated.
Where Redis does not answer, limited keys are refused with 503: limits are not guessed.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from nacre.errors import ConfigError
from nacre.lazy import require
from nacre.lifecycle.serve.contract import Caller, Refusal
from nacre.lifecycle.serve.state.limits import (
    BUCKET_LIFE_S,
    SpentSince,
    check_estimate,
    has_budget,
    is_unlimited,
    period_start,
    read_spent,
    refusal,
)

_TIMEOUT_S = 5.0
_CONNECTIONS = 16  # Redis answers one command at a time: more would only wait there instead of here
_log = logging.getLogger(__name__)

# KEYS: rate, leases, spent. ARGV: id, lease_s, tokens, money, rpm, tpm, concurrent, budget of money, of tokens,
# life of `spent` in seconds, tokens and money that the ledger knows. An empty argument is None.
# Answers {limit that was reached, retry after} or {"", second}; {"seed", ""} where the ledger must be read first.
_RESERVE = f"""
local clock = redis.call('TIME')
local second, now = tonumber(clock[1]), tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local tokens, money = tonumber(ARGV[3]), tonumber(ARGV[4]) or 0
local rpm, tpm, concurrent = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local budget, budget_tokens = tonumber(ARGV[8]), tonumber(ARGV[9])
local budgeted = budget or budget_tokens
if budgeted and redis.call('EXISTS', KEYS[3]) == 0 then
  if ARGV[11] == '' then return {{'seed', ''}} end
  redis.call('HSET', KEYS[3], 'tokens', ARGV[11], 'money', ARGV[12])
  if ARGV[10] ~= '' then redis.call('EXPIRE', KEYS[3], ARGV[10]) end
end
local running, held_tokens, held_money = 0, 0, 0
local leases = redis.call('HGETALL', KEYS[2])
for i = 1, #leases, 2 do
  local ends, _, t, m = string.match(leases[i + 1], '(%S+) (%S+) (%S+) (%S+)')
  if tonumber(ends) <= now then
    redis.call('HDEL', KEYS[2], leases[i])
    if budgeted then
      redis.call('HINCRBY', KEYS[3], 'tokens', t)
      redis.call('HINCRBYFLOAT', KEYS[3], 'money', m)
    end
  else
    running, held_tokens, held_money = running + 1, held_tokens + tonumber(t), held_money + tonumber(m)
  end
end
if budgeted then
  local spent = redis.call('HMGET', KEYS[3], 'tokens', 'money')
  if budget and tonumber(spent[2]) + held_money + money > budget * (1 + 1e-9) then return {{'money', ''}} end
  if budget_tokens and tonumber(spent[1]) + held_tokens + tokens > budget_tokens then return {{'tokens', ''}} end
end
if concurrent and running >= concurrent then return {{'concurrent', '1'}} end
local used, used_tokens, oldest = 0, 0, second
local buckets = redis.call('HGETALL', KEYS[1])
for i = 1, #buckets, 2 do
  local began = tonumber(buckets[i])
  if began + {BUCKET_LIFE_S} <= now then
    redis.call('HDEL', KEYS[1], buckets[i])
  else
    local r, t = string.match(buckets[i + 1], '(%S+) (%S+)')
    used, used_tokens, oldest = used + tonumber(r), used_tokens + tonumber(t), math.min(oldest, began)
  end
end
local wait = string.format('%.3f', oldest + {BUCKET_LIFE_S} - now)
if rpm and used + 1 > rpm then return {{'requests_per_minute', wait}} end
if tpm and used_tokens + tokens > tpm then return {{'tokens_per_minute', wait}} end
local r, t = string.match(redis.call('HGET', KEYS[1], second) or '0 0', '(%S+) (%S+)')
redis.call('HSET', KEYS[1], second, string.format('%d %d', r + 1, t + tokens))
redis.call('EXPIRE', KEYS[1], {BUCKET_LIFE_S + 1})
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.6f %d %d %.17g', now + tonumber(ARGV[2]), second, tokens, money))
return {{'', ''}}
"""

# ARGV: id, tokens, money; an empty argument is charged as it was estimated. Settling twice finds no lease.
_SETTLE = """
local lease = redis.call('HGET', KEYS[2], ARGV[1])
if not lease then return 0 end
redis.call('HDEL', KEYS[2], ARGV[1])
local _, second, held, held_money = string.match(lease, '(%S+) (%S+) (%S+) (%S+)')
local tokens, money = tonumber(ARGV[2]) or tonumber(held), tonumber(ARGV[3]) or tonumber(held_money)
local bucket = redis.call('HGET', KEYS[1], second)
if bucket then
  local r, t = string.match(bucket, '(%S+) (%S+)')
  redis.call('HSET', KEYS[1], second, string.format('%d %d', r, t + tokens - held))
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('HINCRBY', KEYS[3], 'tokens', string.format('%d', tokens))
  redis.call('HINCRBYFLOAT', KEYS[3], 'money', string.format('%.17g', money))
end
return 1
"""


class RedisLimits:
    """Limits of every process that uses one Redis; implements the contract's `Limits`. Open it with `connect`.

    `spent` gives what a key has used since a moment (the ledger's method): it fills Redis where it knows nothing.
    """

    def __init__(
        self, client: Any, spent: SpentSince, *, lease_s: float = 900.0, prefix: str = "nacre",
        wall_clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._client, self._spent, self._lease_s = client, spent, lease_s
        self._prefix, self._wall_clock = prefix, wall_clock
        self._reserve = client.register_script(_RESERVE)
        self._settle = client.register_script(_SETTLE)
        self._errors: tuple[type[Exception], ...] = (require("redis.exceptions").RedisError, OSError, TimeoutError)
        self.unsettled = 0

    @classmethod
    async def connect(cls, address: str, spent: SpentSince, *, lease_s: float = 900.0) -> RedisLimits:
        """Limits at `redis://HOST:PORT/N` or `unix://PATH`. Raises ConfigError where nothing answers there.

        `lease_s` must be longer than a call may last.
        """
        asyncio_redis = require("redis.asyncio")
        parts = urlsplit(address)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        name = place if parts.scheme else "an address without redis://"  # it may be a password
        try:
            pool = asyncio_redis.BlockingConnectionPool.from_url(
                address, max_connections=_CONNECTIONS, timeout=_TIMEOUT_S, socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
            )  # fmt: skip
            client = asyncio_redis.Redis.from_pool(pool)
            limits = cls(client, spent, lease_s=lease_s)
            await client.ping()
        except (ValueError, OSError, require("redis.exceptions").RedisError) as error:
            raise ConfigError(
                f"Redis at {name} cannot be used: {type(error).__name__}",
                remedy="start it, or correct the address: redis://:PASSWORD@HOST:6379/0",
            ) from None
        return limits

    async def reserve(self, caller: Caller, tokens: int, money: float | None) -> RedisHeld:
        """Takes a place for a call; raises Refusal. Nothing is taken by a call that is refused."""
        if is_unlimited(caller.allowance):
            return RedisHeld(self, caller, None)
        check_estimate(caller, tokens, money)
        identity = secrets.token_hex(8)
        limit, value = await self._ask(caller, identity, tokens, money, ("", ""))
        if limit == "seed":
            since = period_start(caller.allowance, self._wall_clock())
            known = await read_spent(self._spent, caller, since)
            limit, value = await self._ask(caller, identity, tokens, money, (str(known.tokens), repr(known.money)))
        if limit:
            raise refusal(limit, caller, float(value) if value else None)
        return RedisHeld(self, caller, identity)

    async def settle(self, caller: Caller, identity: str, tokens: int | None, money: float | None) -> None:
        """Replaces an estimate by the real usage. Where Redis does not answer, the estimate is charged later."""
        try:
            await self._settle(keys=self._keys(caller), args=[identity, _word(tokens), _word(money)])
        except self._errors as error:
            self.unsettled += 1
            _log.error("Redis does not answer (%s): a call of %s stays as estimated", type(error).__name__, caller.id)

    async def close(self) -> None:
        """Ends the connections."""
        await self._client.aclose()
        await self._client.connection_pool.disconnect()

    async def _ask(
        self, caller: Caller, identity: str, tokens: int, money: float | None, known: tuple[str, str]
    ) -> tuple[str, str]:
        a = caller.allowance
        limits = (a.requests_per_minute, a.tokens_per_minute, a.concurrent, a.money, a.tokens)
        life = {"life": "", "day": 2 * 86_400, "month": 33 * 86_400}[a.per]
        args = [identity, self._lease_s, tokens, _word(money), *map(_word, limits), life, *known]
        try:
            limit, value = await self._reserve(keys=self._keys(caller), args=args)
        except self._errors as error:
            _log.error("Redis does not answer: %s", type(error).__name__)
            raise Refusal(
                503, "limits cannot be checked now: try again later", kind="server_error", code="no_limits",
                retry_after=1.0,
            ) from None  # fmt: skip
        return limit.decode(), value.decode()

    def _keys(self, caller: Caller) -> list[str]:
        """Rate, leases, spent; the braces keep a key's three together in a cluster."""
        allowance = caller.allowance
        base = f"{self._prefix}:{{{caller.id}}}"
        start = period_start(allowance, self._wall_clock()) if has_budget(allowance) else None
        return [f"{base}:rate", f"{base}:leases", f"{base}:spent:{allowance.per}:{int(start or 0)}"]


class RedisHeld:
    """What a call holds in Redis, until it is settled."""

    def __init__(self, limits: RedisLimits, caller: Caller, identity: str | None) -> None:
        self._limits, self._caller, self._identity = limits, caller, identity

    async def settle(self, tokens: int | None, money: float | None) -> None:
        """The real usage; what is unknown (None) is charged as it was estimated."""
        identity, self._identity = self._identity, None
        if identity is not None:
            await self._limits.settle(self._caller, identity, tokens, money)


def _word(value: float | None) -> str:
    return "" if value is None else repr(value)
