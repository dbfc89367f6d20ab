"""The gateway on Ray Serve: replicas that scale with the requests that are waiting and under way.

    serve run nacre.lifecycle.serve.deploy.ray_app:build config=gateway.yaml least=1 most=8

Every replica is a whole gateway, so keys, ledger and limits must be shared: PostgreSQL and Redis in the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nacre.errors import ConfigError, MissingDependency
from nacre.lazy import require
from nacre.lifecycle.serve.app import Application
from nacre.lifecycle.serve.assemble import assemble
from nacre.lifecycle.serve.config import load
from nacre.lifecycle.serve.contract import ASGI, Receive, Scope, Send
from nacre.recipe.config import build as build_config

ON_GOING = 16  # requests per replica, waiting or under way, that the autoscaler aims at


@dataclass(frozen=True)
class RaySettings:
    """What `build` is given. `on_going` is the length of a replica's queue that the autoscaler aims at."""

    config: str
    least: int = 1
    most: int = 8
    on_going: int = ON_GOING
    cpus: float = 1.0
    up_s: float = 10.0
    down_s: float = 120.0


class Lifespan:
    """The gateway as an ASGI application that assembles itself when its server starts: a replica is made elsewhere
    than it runs. Raises NacreError at start for what the config names and the replica's machine lacks."""

    def __init__(self, config: str) -> None:
        self._config = config
        self._inner: ASGI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._inner is None:
            gateway = await assemble(load(Path(self._config)))
            self._inner = gateway.parts.wrap(Application(gateway))
        await self._inner(scope, receive, send)


def build(arguments: Mapping[str, Any]) -> Any:
    """The Ray Serve application; raises ConfigError for wrong arguments, MissingDependency without Ray."""
    settings = build_config(RaySettings, _numbers(arguments), "ray")
    if not 1 <= settings.least <= settings.most:
        raise ConfigError(
            f"ray: {settings.least} to {settings.most} replicas", remedy="least is 1 or more, most not below"
        )
    load(Path(settings.config))  # what is wrong with it is said here, not in every replica
    serve = _ray_serve()
    replica = serve.ingress(Lifespan(settings.config))(type("NacreGateway", (), {}))
    return serve.deployment(**deployment_options(settings))(replica).bind()


def deployment_options(settings: RaySettings) -> dict[str, Any]:
    """Options of `ray.serve.deployment`: scaling by queue length, streams drained for a minute."""
    return {
        "name": "nacre-gateway",
        "max_ongoing_requests": 4 * settings.on_going,
        "graceful_shutdown_timeout_s": 60.0,
        "ray_actor_options": {"num_cpus": settings.cpus},
        "autoscaling_config": {
            "min_replicas": settings.least, "max_replicas": settings.most,
            "target_ongoing_requests": settings.on_going,
            "upscale_delay_s": settings.up_s, "downscale_delay_s": settings.down_s,
        },
    }  # fmt: skip


def _numbers(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`serve run` passes KEY=VALUE as strings; a config file passes numbers."""
    kinds = {"least": int, "most": int, "on_going": int, "cpus": float, "up_s": float, "down_s": float}
    found = dict(arguments)
    for name in kinds.keys() & found.keys():
        if isinstance(found[name], str):
            try:
                found[name] = kinds[name](found[name])
            except ValueError:
                raise ConfigError(f"ray: {name} is {found[name]!r}", remedy=f"give a number: {name}=2") from None
    return found


def _ray_serve() -> Any:
    try:
        return require("ray.serve")
    except ImportError:
        raise MissingDependency(
            "ray.serve is needed here and is not installed", remedy="pip install 'ray[serve]'"
        ) from None
