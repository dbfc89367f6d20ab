"""Every stage there is: `area.verb -> "module:function"`. A module is imported when its stage is first used."""

from __future__ import annotations

from importlib import import_module

from nacre.errors import ConfigError, closest
from nacre.lazy import missing
from nacre.recipe.stage import Stage

# One line per stage. The modules named here are light: see the convention in `stage.py`.
STAGES: dict[str, str] = {
    "tokenizer.train": "nacre.lifecycle.prepare.tokenizer:train_tokenizer",
}


def find(name: str) -> Stage:
    """The stage of this name; raises ConfigError naming the closest, MissingDependency when its module needs more."""
    target = STAGES.get(name)
    if target is None:
        raise ConfigError(f"unknown stage {name!r}", remedy=closest(name, STAGES))
    module, _, attribute = target.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise missing((error.name or module).partition(".")[0]) from error
    if not isinstance(found, Stage) or found.name != name:
        raise ConfigError(f"{target} is not the stage {name!r}", remedy="decorate it with @stage, or correct STAGES")
    return found
