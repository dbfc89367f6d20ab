"""A config without a file: references on the command line become models under short names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from nacre.engine.address import settings_in
from nacre.errors import UsageError
from nacre.lifecycle.serve.config import LocalConfig, ModelConfig, ServeConfig, UpstreamConfig, check
from nacre.lifecycle.serve.contract import Ability
from nacre.recipe.config import raise_problems

_EVERYTHING: tuple[Ability, ...] = ("chat", "completions", "embeddings", "stream", "tools", "json_schema")
_OFFERS: dict[str, tuple[Ability, ...]] = {
    "chat": ("chat", "tools", "json_schema"), "complete": ("completions",), "embed": ("embeddings",),
    "stream": ("stream",), "score": (),
}  # fmt: skip


def config_of(references: Sequence[str]) -> ServeConfig:
    """Serves these references on loopback; raises UsageError where two have the same name."""
    models: dict[str, ModelConfig] = {}
    for reference in references:
        name, model = _model(reference)
        if name in models:
            raise UsageError(f"two of these would be called {name!r}", remedy="name them apart in a YAML file")
        models[name] = model
    config = ServeConfig(models)
    problems = [replace(one, where=one.where.removeprefix("command line.")) for one in check(config, "command line")]
    raise_problems(problems)
    return config


def _model(reference: str) -> tuple[str, ModelConfig]:
    if not re.match(r"https?://", reference):
        return short_name(reference), ModelConfig(local=LocalConfig(reference))
    said = settings_in(reference)
    offers = said.get("offers")
    able = _EVERYTHING if offers is None else tuple(one for offer in offers for one in _OFFERS.get(offer, ()))
    upstream = UpstreamConfig(said["address"], said["model"], said.get("key_variable"), able)
    return short_name(said["model"]), ModelConfig(upstream=upstream)


def short_name(reference: str) -> str:
    """What a client asks for: a store name without its version, a folder's own name, a model's last part."""
    text = reference if ":" not in reference else reference.partition(":")[2] or reference
    path = urlsplit(text).path.rstrip("/")
    name = path if _is_store_name(text) else path.rpartition("/")[2]
    return re.sub(r"[\s*\"'\\]+", "-", name.partition("@")[0]).strip("-.") or "model"


def _is_store_name(text: str) -> bool:
    return bool(re.fullmatch(r"[\w-]+(/[\w-]+)*(@\d+)?", text)) and not text.startswith("/")
