"""Every stage there is: `area.verb -> "module:function"`. A module is imported when its stage is first used."""

from __future__ import annotations

from nacre.errors import ConfigError, closest
from nacre.lazy import missing, named
from nacre.recipe.stage import Stage

# One line per stage. The modules named here are light: see the convention in `stage.py`.
STAGES: dict[str, str] = {
    "baseline.classify": "nacre.tiers.baseline.stages:classify",
    "baseline.solve": "nacre.tiers.baseline.stages:solve",
    "data.augment": "nacre.lifecycle.prepare.augment:augment",
    "data.chat": "nacre.lifecycle.prepare.chat:chat",
    "data.digits": "nacre.lifecycle.prepare.digits:digits",
    "data.join": "nacre.lifecycle.prepare.join:join",
    "data.prepare": "nacre.lifecycle.prepare.data:prepare",
    "data.stdlib": "nacre.lifecycle.prepare.stdlib:stdlib",
    "evaluate.classify": "nacre.lifecycle.evaluate.stages:classify",
    "evaluate.ensemble": "nacre.lifecycle.evaluate.ensemble:ensemble",
    "evaluate.forgetting": "nacre.lifecycle.evaluate.forgetting:forgetting",
    "evaluate.generate": "nacre.lifecycle.evaluate.stages:generate",
    "evaluate.identity": "nacre.lifecycle.evaluate.identity:identity",
    "evaluate.images": "nacre.lifecycle.evaluate.stages:images",
    "evaluate.language": "nacre.lifecycle.evaluate.stages:language",
    "evaluate.preference": "nacre.lifecycle.evaluate.preferring:preference",
    "evaluate.tag": "nacre.lifecycle.evaluate.stages:tag",
    "evaluate.translate": "nacre.lifecycle.evaluate.stages:translate",
    "kernel.initialise": "nacre.tiers.pretrain.stages:initialise",
    "kernel.shrink": "nacre.tiers.tune.shrinking:shrink",
    "ladder.answer": "nacre.ladder.answer:answer",
    "pretrain.bert": "nacre.tiers.pretrain.stages:bert",
    "pretrain.causal": "nacre.tiers.pretrain.stages:causal",
    "pretrain.mlm": "nacre.tiers.pretrain.stages:mlm",
    "pretrain.solve": "nacre.tiers.pretrain.stages:solve",
    "pretrain.span": "nacre.tiers.pretrain.stages:span",
    "relay.solve": "nacre.tiers.relay.stages:solve",
    "task.corpus": "nacre.ladder.stages:corpus",
    "retrieval.index": "nacre.tiers.retrieval.stages:index",
    "retrieval.solve": "nacre.tiers.retrieval.stages:solve",
    "task.prepare": "nacre.ladder.stages:prepare",
    "task.test": "nacre.ladder.stages:test",
    "prompt.optimise": "nacre.tiers.prompt.stages:optimise",
    "prompt.solve": "nacre.tiers.prompt.stages:solve",
    "teach.collect": "nacre.tiers.relay.teaching:collect",
    "teach.contrast": "nacre.tiers.relay.teaching:contrast",
    "tokenizer.train": "nacre.lifecycle.prepare.tokenizer:train_tokenizer",
    "tune.average": "nacre.tiers.tune.averaging:average",
    "tune.causal": "nacre.tiers.tune.stages:causal",
    "tune.classify": "nacre.tiers.tune.stages:classify",
    "tune.continual": "nacre.tiers.tune.continuing:continual",
    "tune.crossvalidate": "nacre.tiers.tune.folding:crossvalidate",
    "tune.distil": "nacre.tiers.tune.distilling:distil",
    "tune.grpo": "nacre.tiers.tune.reinforcing:grpo",
    "tune.images": "nacre.tiers.tune.stages:images",
    "tune.preference": "nacre.tiers.tune.preferring:preference",
    "tune.reward": "nacre.tiers.tune.preferring:reward",
    "tune.ppo": "nacre.tiers.tune.reinforcing:ppo",
    "tune.seq2seq": "nacre.tiers.tune.stages:seq2seq",
    "tune.solve": "nacre.tiers.tune.stages:solve",
    "tune.sft": "nacre.tiers.tune.conversation:sft",
    "tune.tag": "nacre.tiers.tune.stages:tag",
}


def find(name: str) -> Stage:
    """The stage of this name; raises ConfigError naming the closest, MissingDependency when its module needs more."""
    target = STAGES.get(name)
    if target is None:
        raise ConfigError(f"unknown stage {name!r}", remedy=closest(name, STAGES))
    try:
        found = named(target)
    except ModuleNotFoundError as error:
        package = (error.name or "nacre").partition(".")[0]
        if package == "nacre":  # a line of the table that names nothing: a fault here, no missing extra
            raise
        raise missing(package) from error
    if not isinstance(found, Stage) or found.name != name:
        raise ConfigError(f"{target} is not the stage {name!r}", remedy="decorate it with @stage, or correct STAGES")
    return found
