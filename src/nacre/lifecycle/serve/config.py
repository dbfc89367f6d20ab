"""What `nacre serve` reads: strict YAML into frozen dataclasses, every mistake with its line and the closest key.

listen: {host: 127.0.0.1, port: 8400}
models:
  mini:
    upstream: {address: https://api.example.com/v1, model: mini-2, key_variable: MINI_KEY, abilities: [chat, stream]}
    price: {input_per_million: 0.15, output_per_million: 0.6}
  desk:
    local: {ref: intents/tune}
routes:
  smart: [mini, desk]      # tried in this order, and only because it is declared here
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from nacre.engine.prices import Prices
from nacre.errors import ConfigError, closest
from nacre.lifecycle.serve.addresses import check_upstream, is_loopback_host
from nacre.lifecycle.serve.cache_opening import read_cache
from nacre.lifecycle.serve.config_lines import place_problems
from nacre.lifecycle.serve.contract import Ability
from nacre.lifecycle.serve.masked import read_masking
from nacre.lifecycle.serve.tls import TLSConfig
from nacre.lifecycle.serve.watch.config import WatchConfig
from nacre.lifecycle.serve.watch.config import check as check_watch
from nacre.recipe.config import Problem, raise_problems, try_build
from nacre.recipe.yaml12 import loads

ABILITIES: tuple[Ability, ...] = get_args(Ability)
DEFAULT_PORT = 8400
MOST_WORKERS = 64
_NAME = re.compile(r"[^\s\x00-\x1f\x7f*\"'\\]{1,128}")
_ADAPTER = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Listen:
    """Where the gateway listens, and how many processes answer. Off loopback it wants keys."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    workers: int = 1
    tls: TLSConfig | None = None

    @property
    def is_loopback(self) -> bool:
        return is_loopback_host(self.host)


@dataclass(frozen=True)
class Bounds:
    """What a client may ask of the server itself. Times in seconds, sizes in bytes."""

    body_bytes: int = 16 * 2**20
    nesting: int = 64  # of JSON
    header_bytes: int = 32 * 2**10  # request line and headers together
    headers: int = 100
    header_s: float = 10.0  # from the first byte of a request (or the connection) until its headers are whole
    body_s: float = 60.0
    reader_s: float = 30.0  # a client that reads next to nothing of its answer for so long is cut off
    idle_s: float = 75.0  # a kept connection without a request
    in_flight: int = 1024  # requests under way at once; more are told 429
    connections: int = 4096
    drain_s: float = 30.0  # streams under way at SIGTERM have this long


@dataclass(frozen=True)
class Timeouts:
    """Patience with an upstream, in seconds: connection, first byte of the answer, between two bytes, all of it."""

    connect_s: float = 5.0
    first_byte_s: float = 120.0
    between_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True)
class UpstreamConfig:
    """A model behind an OpenAI-compatible address. The key stands in an environment variable, never in the file.

    `abilities` is what is forwarded to it: a request that needs another is refused. Private addresses need
    `allow_private`, loopback ones none; a key travels over plain http to other machines only with `insecure`.
    """

    address: str
    model: str | None = None  # its name there; by default the name here
    key_variable: str | None = None
    abilities: tuple[Ability, ...] = ("chat", "completions", "embeddings", "stream")
    allow_private: bool = False
    insecure: bool = False
    timeouts: Timeouts = field(default_factory=Timeouts)
    reply_bytes: int = 64 * 2**20  # the longest answer that is not streamed


@dataclass(frozen=True)
class LocalConfig:
    """Something of ours: a checkpoint, an engine's folder, a rung or an index. `queue` waits, more are told 429.

    `adapters`, by name, stand over a checkpoint; each is a model of its own, NAME:adapter.
    """

    ref: str
    device: str = "auto"
    batch: int = 16
    wait_ms: float = 2.0
    queue: int = 64
    total_s: float = 600.0
    adapters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LocalAdapter(LocalConfig):
    """The adapter `adapter` of the model `base`, with the base's settings. No file names it: the base does."""

    base: str = ""
    adapter: str = ""


@dataclass(frozen=True)
class ModelConfig:
    """A model: either an upstream or something local, and what it costs. An unknown price is unknown, not zero."""

    upstream: UpstreamConfig | None = None
    local: LocalConfig | None = None
    price: Prices = field(default_factory=Prices)


@dataclass(frozen=True)
class StateConfig:
    """Where keys, ledger and limits live. None is `gateway.db` (SQLite) in the store.

    `database` is a path, or `postgresql://HOST/NAME` without a password; an address with one stands in the environment
    variable `database_variable`. `limits` is `memory`, or the environment variable of a Redis address is named in
    `redis_variable`, which several replicas share. `durable`: an entry is on disk before the last byte of its answer
    goes out, so that a power cut loses none; without it a killed process loses none, a power cut the last second.
    """

    database: str | None = None
    database_variable: str | None = None
    limits: Literal["memory", "redis"] = "memory"
    redis_variable: str | None = None
    estimate_tokens: int = 512  # of an answer whose request names no max_tokens, while it is under way
    durable: bool = False


@dataclass(frozen=True)
class KeysConfig:
    """Whether a key is asked for; None is where any are kept, and always off loopback."""

    required: bool | None = None


@dataclass(frozen=True)
class ServeConfig:
    """Everything that `nacre serve` is told. `sections` holds what the other parts read themselves."""

    models: Mapping[str, ModelConfig]
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listen: Listen = field(default_factory=Listen)
    bounds: Bounds = field(default_factory=Bounds)
    keys: KeysConfig = field(default_factory=KeysConfig)
    state: StateConfig = field(default_factory=StateConfig)
    cache: Mapping[str, Any] = field(default_factory=dict)
    masking: Mapping[str, Any] = field(default_factory=dict)
    watch: WatchConfig = field(default_factory=WatchConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "models", _with_adapters(self.models))

    @property
    def names(self) -> tuple[str, ...]:
        """What a client may ask for."""
        return (*self.models, *self.routes)


def _with_adapters(models: Mapping[str, ModelConfig]) -> dict[str, ModelConfig]:
    """The models, each base followed by its adapters at its price; what has such a name already keeps it."""
    every: dict[str, ModelConfig] = {}
    for name, model in models.items():
        every[name] = model
        for adapter in () if model.local is None else model.local.adapters:
            full, settings = f"{name}:{adapter}", vars(model.local) | {"adapters": {}}
            own = ModelConfig(local=LocalAdapter(**settings, base=name, adapter=adapter), price=model.price)
            every[full] = models.get(full, own)
    return every


def load(path: Path) -> ServeConfig:
    """The config of a file; raises ConfigError with every mistake, its line and what to write instead."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist", remedy="check the path") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x})",
            remedy=f"save it as UTF-8; where it was written in GBK: iconv -f GBK -t UTF-8 {shlex.quote(str(path))}",
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", remedy="give the path of a YAML file") from None
    return parse(text, str(path))


def parse(text: str, where: str) -> ServeConfig:
    """The config of a YAML text. `where` is named in errors."""
    values = loads(text, where)
    if not isinstance(values, Mapping):
        what = "nothing is in it" if values is None else "not a mapping"
        raise ConfigError(f"{where}: {what}", remedy="it begins with `models:` (docs/serve.md)")
    built, problems = try_build(ServeConfig, values, where)
    if built is not None:
        problems = list(check(built, where))
    raise_problems(place_problems(problems, text, where))
    assert built is not None  # no problems means built
    return built


def check(config: ServeConfig, where: str) -> Iterator[Problem]:
    """What types cannot say: names, pairs of keys that belong together, addresses, numbers above zero."""
    if not config.models:
        yield Problem(where, "no model is named", "add one under `models`")
    for name, model in config.models.items():
        yield from _check_name(name, f"{where}.models")
        yield from _check_model(model, f"{where}.models.{name}")
        yield from _check_adapters(name, model, config, f"{where}.models.{name}.local.adapters")
    for name, targets in config.routes.items():
        yield from _check_route(name, targets, config, f"{where}.routes")
    yield from _positive(config.bounds, f"{where}.bounds")
    yield from check_listen(config.listen, f"{where}.listen")
    yield from _check_state(config.state, f"{where}.state")
    yield from read_cache(config.cache, f"{where}.cache", config.models)[1]
    yield from read_masking(config.masking, f"{where}.masking", config.names)[1]
    yield from check_watch(config.watch, f"{where}.watch")


def check_listen(listen: Listen, where: str) -> Iterator[Problem]:
    """Ports and numbers of processes that cannot be meant."""
    if not 0 <= listen.port <= 65535:
        yield Problem(f"{where}.port", f"{listen.port} is no port", "give 1 to 65535, or 0 for a free one")
    if not 1 <= listen.workers <= MOST_WORKERS:
        what = f"{listen.workers} is no number of processes"
        yield Problem(f"{where}.workers", what, f"give 1 to {MOST_WORKERS}; one per core is usual")


def _check_name(name: str, where: str) -> Iterator[Problem]:
    if not _NAME.fullmatch(name):
        yield Problem(where, f"{name!r} cannot name a model", "1 to 128 characters without spaces, quotes and *")


def _check_model(model: ModelConfig, where: str) -> Iterator[Problem]:
    if (model.upstream is None) == (model.local is None):
        yield Problem(where, "a model is either `upstream` or `local`", "give one of the two")
    if (upstream := model.upstream) is not None:
        yield from check_upstream(upstream.address, upstream.allow_private, f"{where}.upstream.address")
        if upstream.key_variable is not None and not _VARIABLE.fullmatch(upstream.key_variable):
            yield Problem(
                f"{where}.upstream.key_variable", "this is no name of an environment variable",
                "put the key into a variable, and the variable's name here",
            )  # fmt: skip
        yield from _positive(upstream.timeouts, f"{where}.upstream.timeouts")
    if (local := model.local) is not None:
        yield from _positive(local, f"{where}.local")


def _check_adapters(name: str, model: ModelConfig, config: ServeConfig, where: str) -> Iterator[Problem]:
    for adapter in () if model.local is None else model.local.adapters:
        if not _ADAPTER.fullmatch(adapter):
            what = f"{adapter!r} cannot name an adapter"
            yield Problem(where, what, "1 to 64 letters, digits, _ and -, such as task-a")
        elif not isinstance(config.models[f"{name}:{adapter}"].local, LocalAdapter):
            what = f"a model is called {name}:{adapter} too"
            yield Problem(f"{where}.{adapter}", what, "name one of them differently")


def _check_route(name: str, targets: Sequence[str], config: ServeConfig, where: str) -> Iterator[Problem]:
    yield from _check_name(name, where)
    if name in config.models:
        yield Problem(f"{where}.{name}", "a model has this name too", "name the route differently")
    if not targets:
        yield Problem(f"{where}.{name}", "the route names no model", "list one or more, in order")
    for target in targets:
        if target not in config.models:
            yield Problem(f"{where}.{name}", f"unknown model {target!r}", closest(target, config.models))
    if len(set(targets)) < len(targets):
        yield Problem(f"{where}.{name}", "a model stands twice", "name each once")


def _check_state(state: StateConfig, where: str) -> Iterator[Problem]:
    if state.database is not None and state.database_variable is not None:
        yield Problem(where, "both `database` and `database_variable`", "give one of them")
    if state.limits == "redis" and not state.redis_variable:
        yield Problem(f"{where}.limits", "redis has no address", "name its variable: redis_variable: REDIS_URL")
    if state.database and re.match(r"\w+://[^/@]*:[^/@]*@", state.database):
        yield Problem(
            f"{where}.database", "the address holds a password",
            "put it into an environment variable, and its name into database_variable",
        )  # fmt: skip


def _positive(values: Any, where: str) -> Iterator[Problem]:
    for name, value in vars(values).items():
        if isinstance(value, int | float) and not isinstance(value, bool) and not 0 < value < float("inf"):
            yield Problem(f"{where}.{name}", f"{value} is not above 0", "give a number above 0")
