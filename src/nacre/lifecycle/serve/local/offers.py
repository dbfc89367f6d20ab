"""What of a store could be served, and as what: told from a few small files, without opening a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nacre.engine.settings import ENGINE_FILE
from nacre.lifecycle.serve.config import LocalConfig, ModelConfig, ServeConfig
from nacre.lifecycle.serve.contract import Ability
from nacre.lineage.store import Store

OfferKind = Literal["model", "classifier", "rung", "index"]
_LONGEST_NAME = 128  # of a model in the gateway
_WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
RUNG_ABILITIES: Mapping[str, frozenset[Ability]] = {  # by the kind of its task
    "classify": frozenset({"classify"}),
    "generate": frozenset({"chat", "stream"}),
    "rank": frozenset({"search"}),
}
_ENGINES: Mapping[str, Ability] = {
    "chat": "chat", "complete": "completions", "embed": "embeddings", "stream": "stream",
}  # fmt: skip


@dataclass(frozen=True)
class Offer:
    """Something that can answer. `tier`, `task` and `solver` are a rung's own words."""

    kind: OfferKind
    abilities: frozenset[Ability]
    tier: str = ""
    task: str = ""
    solver: str = ""


@dataclass(frozen=True)
class Offers:
    """What a store offers, by name; and what it does not, each with the reason."""

    found: Mapping[str, tuple[str, Offer]] = field(default_factory=dict)  # name -> (name@version, offer)
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def config(self) -> ServeConfig:
        """All of them as models, under their names in the store."""
        return ServeConfig({name: ModelConfig(local=LocalConfig(ref)) for name, (ref, _) in self.found.items()})


def offers(store: Store) -> Offers:
    """The newest version of everything in a store that can answer a request; reads no record and imports no model."""
    found: dict[str, tuple[str, Offer]] = {}
    left_out: dict[str, str] = {}
    for name in store.names():
        version = store.versions(name)[-1]
        try:
            offer = offer_of(store.folder(name, version))
        except ValueError as error:
            left_out[f"{name}@{version}"] = str(error)
            continue
        if offer is None or not offer.abilities - {"embeddings"}:
            continue  # data, tokenizers, reports; encoders without a head have nothing to say
        if len(name) > _LONGEST_NAME:
            left_out[f"{name}@{version}"] = f"its name is longer than {_LONGEST_NAME} characters"
            continue
        found[name] = (f"{name}@{version}", offer)
    return Offers(found, left_out)


def offer_of(folder: Path) -> Offer | None:
    """What a folder can answer, as `open_local` would open it; None for what is nothing of the kind.

    Raises ValueError for a damaged file, or a rung whose answers no route has a shape for.
    """
    if (folder / "rung.json").is_file():
        return _rung(_object(folder / "rung.json"))
    if (folder / "index.json").is_file():
        return Offer("index", frozenset({"search"}))
    if (folder / ENGINE_FILE).is_file():
        offered = _object(folder / ENGINE_FILE).get("offers", ["chat", "embed"])
        return Offer("model", frozenset(_ENGINES[one] for one in offered if one in _ENGINES))
    if (folder / "config.json").is_file():
        return _checkpoint(folder)
    return None


def _rung(manifest: Mapping[str, Any]) -> Offer:
    kind = str(manifest.get("kind"))
    if kind not in RUNG_ABILITIES:
        raise ValueError(f"a rung that does {kind}: no route of the gateway has its answers' shape")
    tier, task, solver = (str(manifest.get(name, "")) for name in ("tier", "task", "solver"))
    return Offer("rung", RUNG_ABILITIES[kind], tier, task, solver)


def _checkpoint(folder: Path) -> Offer:
    """By the architecture that `config.json` names, and whether there is a chat template."""
    named = _object(folder / "config.json").get("architectures")
    kinds = [str(one) for one in named] if isinstance(named, list) else []
    if any(one.endswith("ForSequenceClassification") for one in kinds):
        return Offer("classifier", frozenset({"classify"}))
    able: set[Ability] = set()
    if any(one.endswith(_WRITERS) for one in kinds):
        able |= {"completions", "stream"}
        if _has_template(folder):
            able.add("chat")
    if not any(one.endswith("ForConditionalGeneration") for one in kinds):
        able.add("embeddings")
    return Offer("model", frozenset(able))


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    return settings.is_file() and bool(_object(settings).get("chat_template"))


def _object(file: Path) -> Mapping[str, Any]:
    """The JSON object of a file; raises ValueError naming it."""
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file.name} cannot be read: {error}") from None
    if not isinstance(plain, dict):
        raise ValueError(f"{file.name} is no JSON object")
    return plain
