"""From a config to a gateway: every part made, in the one place that knows them all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from nacre.errors import ConfigError, UsageError
from nacre.lifecycle.serve.budgets import budgets_used
from nacre.lifecycle.serve.cache_opening import count, open_cache
from nacre.lifecycle.serve.config import LocalConfig, ServeConfig, StateConfig, check_listen
from nacre.lifecycle.serve.contract import Backend, Limits
from nacre.lifecycle.serve.local.on_demand import when_asked
from nacre.lifecycle.serve.masked import Mask
from nacre.lifecycle.serve.pipeline import Gateway, Parts
from nacre.lifecycle.serve.routing import Table
from nacre.lifecycle.serve.state.database import state_folder
from nacre.lifecycle.serve.state.keys import KeyStore
from nacre.lifecycle.serve.state.ledger import StoredLedger
from nacre.lifecycle.serve.state.limits import MemoryLimits
from nacre.lifecycle.serve.state.limits_unshared import UnsharedLimits, refuse_unshared
from nacre.lifecycle.serve.state.pricing import PriceList
from nacre.lifecycle.serve.upstream import Upstream, line_for
from nacre.lifecycle.serve.watch.watch import Watch
from nacre.lifecycle.serve.workers import Place
from nacre.recipe.config import raise_problems
from nacre.recipe.references import open_store

LocalOpener = Callable[[str, LocalConfig], Backend]


async def assemble(
    config: ServeConfig, open_local: LocalOpener | None = None, *, store: str | None = None,
    place: Place | None = None, open_at_once: int | None = None,
) -> Gateway:  # fmt: skip
    """The gateway of a config, its models not started yet; raises NacreError for what can be known already.

    `open_local` makes the backend of a local model, where it is not to run in this process; `store` is the folder in
    which references are looked up and, unless the config says otherwise, state is kept; `place` is that of one of
    several workers. With `open_at_once` a local model is opened when it is first asked, and so many stay open.
    """
    async with AsyncExitStack() as stack:
        folder = state_folder(store)
        address = database_address(config.state) or folder / "gateway.db"
        keys = await asyncio.to_thread(KeyStore, address)
        stack.callback(keys.close)
        refuse_open_door(config, bool(keys), keys.where)
        ledger = await asyncio.to_thread(partial(StoredLedger, address, journal=folder))
        stack.push_async_callback(ledger.close)
        limits = await _limits(config, ledger, keys)
        stack.push_async_callback(limits.close)
        watch = Watch(config.watch, config.names, partial(budgets_used, keys, ledger), place)
        watch.meters.reads(
            "nacre_ledger_waiting", "Entries that the ledger's database has not yet.", lambda: len(ledger)
        )
        watch.alerter.parts["the ledger's database"] = lambda: ledger.trouble
        opener = open_local or _here(store, watch)
        if open_at_once is not None:
            opener = when_asked(opener, open_store(store), open_at_once)
        backends = _backends(config, opener, watch, stack)
        prices = PriceList({name: model.price for name, model in config.models.items()})
        mask = Mask.from_section(config.masking, "masking", meters=watch, models=config.names)
        answers = open_cache(config, backends)
        stack.push_async_callback(answers.close)
        count(answers, watch.meters)
        parts = Parts(keys, ledger, limits, watch, prices, answers, mask, services=(watch,), wrap=watch.traces.wrap)
        return Gateway(config, Table(backends, config.routes), parts, stack.pop_all())


async def _limits(config: ServeConfig, ledger: StoredLedger, keys: KeyStore) -> Limits:
    if config.state.limits == "memory":
        workers = config.listen.workers
        if workers == 1:
            return MemoryLimits(ledger.spent)
        refuse_unshared(await asyncio.to_thread(keys.list), workers)
        return UnsharedLimits(workers)
    from nacre.lifecycle.serve.state.limits_redis import RedisLimits

    address = _variable(config.state.redis_variable or "", "the address of Redis")
    return await RedisLimits.connect(address, ledger.spent, lease_s=longest_call_s(config) + 60)


def _here(store: str | None, watch: Watch) -> LocalOpener:
    """Makes models that run in this process."""
    from nacre.lifecycle.serve.local.opening import Openings

    return Openings(open_store(store), watch.queued)


def _backends(
    config: ServeConfig, open_local: LocalOpener, watch: Watch, stack: AsyncExitStack
) -> Mapping[str, Backend]:
    upstreams = {name: model.upstream for name, model in config.models.items() if model.upstream is not None}
    line = line_for(upstreams, watch.traces.client)
    stack.push_async_callback(line.close)
    backends: dict[str, Backend] = {}
    for name, model in config.models.items():
        if model.upstream is not None:
            backends[name] = Upstream(name, model.upstream, line)
        elif model.local is not None:
            backends[name] = open_local(name, model.local)
        stack.push_async_callback(backends[name].close)
    return backends


def refuse_open_door(config: ServeConfig, has_keys: bool, where: str) -> None:
    """Raises UsageError where others could reach a gateway that asks for no keys, or that has none to compare with."""
    listen = config.listen
    if config.keys.required is False and not listen.is_loopback:
        raise ConfigError(
            f"{listen.host} can be reached by others, and keys are not required",
            remedy="leave keys.required out, or listen on 127.0.0.1",
        )
    if not has_keys and (config.keys.required or not listen.is_loopback):
        raise UsageError(
            f"{listen.host}:{listen.port} asks for keys, and there are none in {where}",
            remedy="make one: nacre serve keys create NAME, with the same --store or --database "
            "(or listen on 127.0.0.1, where none is needed)",
        )


def longest_call_s(config: ServeConfig) -> float:
    """How long a call may last."""
    times = [m.upstream.timeouts.total_s for m in config.models.values() if m.upstream is not None]
    return max([*times, *(m.local.total_s for m in config.models.values() if m.local is not None)])


def database_address(state: StateConfig) -> str | None:
    """Where keys and ledger are; None is the default. Raises UsageError for a variable that holds nothing."""
    if state.database_variable is not None:
        return _variable(state.database_variable, "the address of the database")
    return state.database


def listening(config: ServeConfig, host: str | None, port: int | None, workers: int | None = None) -> ServeConfig:
    """The config with another host, port or number of workers; raises UsageError for a number that is none."""
    listen = config.listen
    port = listen.port if port is None else port
    workers = listen.workers if workers is None else workers
    changed = replace(listen, host=host or listen.host, port=port, workers=workers)
    raise_problems([replace(one, where=one.where.replace(".", "--")) for one in check_listen(changed, "")])
    return replace(config, listen=changed)


def _variable(name: str, what: str) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise UsageError(f"the environment variable {name} holds nothing, not {what}", remedy=f"export {name}=...")
    return value
