"""The stages of reinforcement: GRPO and PPO. Light: torch is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nacre.data.chat.shipped import check_name
from nacre.errors import CheckpointError, ConfigError, DataError
from nacre.kernel.adapters.config import AdapterConfig, LoraConfig, chosen
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.tiers.asking.services import check_terms
from nacre.tiers.tune.preferring import check_template, config_of
from nacre.tiers.tune.reinforce.config import GrpoConfig, PpoConfig, RewardsConfig, Settings

_INPUTS = {
    "model": Input("model", "finetuned_from"),
    "tokenizer": Input("tokenizer", "tokenized_by", optional=True),
    "data": Input("dataset", "trained_on"),
    "reward_model": Input("model", "aligned_with", optional=True),
    "judge": Input("any", "aligned_with", optional=True),
}


@dataclass(frozen=True)
class TuneGrpoConfig(GrpoConfig):
    """`template`: one that is shipped (None: the tokenizer's own, or none, where prompts of one turn are read as they
    are). `lora`: train adapters; the reference is then the model with adapters off. `limit`: of training prompts."""

    template: str | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template is not None:
            check_name(self.template)


@dataclass(frozen=True)
class TunePpoConfig(PpoConfig):
    """As `TuneGrpoConfig`."""

    template: str | None = None
    lora: LoraConfig | None = None
    adapter: AdapterConfig | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template is not None:
            check_name(self.template)


TuneReinforceConfig = TuneGrpoConfig | TunePpoConfig


def check_reinforce(config: TuneReinforceConfig, inputs: Mapping[str, Path]) -> None:
    """What can be known before: that the model writes, the template, that the rewards have what they judge by."""
    chosen(config.lora, config.adapter)
    _check_judges(config.rewards, inputs)
    model = config_of(inputs.get("model"))
    if model is not None and (model.head != "lm" or (model.layout != "decoder" and isinstance(config, PpoConfig))):
        raise CheckpointError(
            f"{inputs['model']} is a model of layout {model.layout!r} with the head {model.head!r}",
            remedy="give a decoder with its language-model head (for tune.grpo an encoder-decoder as well)",
        )
    check_template(config.template, inputs)
    _check_rows(config.rewards, inputs)


def _check_judges(rewards: RewardsConfig, inputs: Mapping[str, Path]) -> None:
    """The models that judge are given where they are named, and the other way round; a service with its terms."""
    if rewards.model is not None and inputs and "reward_model" not in inputs:
        raise ConfigError(
            "rewards.model: no reward model is given", remedy="name one under inputs: reward_model (from tune.reward)"
        )
    if rewards.model is None and "reward_model" in inputs:
        raise ConfigError(
            "a reward model is given, and nothing is rewarded by it", remedy="add model: {} under rewards"
        )
    if rewards.judge is not None and inputs and "judge" not in inputs:
        raise ConfigError(
            "rewards.judge: no engine is given", remedy="name one under inputs: judge (an address, or a model)"
        )
    if rewards.judge is None and "judge" in inputs:
        raise ConfigError("a judge is given, and not asked", remedy="add judge: {rubric: ...} under rewards")
    if rewards.judge is not None and "judge" in inputs:
        check_terms(inputs["judge"], rewards.judge.terms, "judge")


def _check_rows(rewards: RewardsConfig, inputs: Mapping[str, Path]) -> None:
    """The first training row; all of them are read when the step begins."""
    from nacre.data.chat.formats import require_conversations
    from nacre.data.read import read

    file = inputs["data"] / "train.jsonl" if "data" in inputs else None
    row = None if file is None or not file.is_file() else next(iter(read(file)), None)
    if row is None:
        return
    if not ("messages" in row or "source" in row):
        try:
            require_conversations([row], str(file))
        except DataError as error:
            raise DataError(
                f"{file}: these rows are no prompts: {error.message.removeprefix(f'{file}: ')}",
                remedy='give rows such as {"messages": [{"role": "user", "content": ...}], "expected": ...}',
            ) from error
    if rewards.tests is not None and not row.get("tests"):
        raise DataError(f"{file}: rewards.tests, and the first row has no tests", remedy="give every prompt 'tests'")


def settings_of(config: TuneReinforceConfig) -> Settings:
    """What the loop needs to know."""
    names = GrpoConfig.__dataclass_fields__ if isinstance(config, GrpoConfig) else PpoConfig.__dataclass_fields__
    kind = GrpoConfig if isinstance(config, GrpoConfig) else PpoConfig
    return kind(**{name: getattr(config, name) for name in names})


@stage("tune.grpo", produces="model", inputs=_INPUTS, check=check_reinforce)
def grpo(config: TuneGrpoConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel that writes answers of higher reward: each compared with others to the same prompt (GRPO)."""
    from nacre.tiers.tune.reinforcing_worker import tune_reinforced

    return tune_reinforced(config, work)


@stage("tune.ppo", produces="model", inputs=_INPUTS, check=check_reinforce)
def ppo(config: TunePpoConfig, work: Work) -> Mapping[str, Scalar]:
    """A kernel that writes answers of higher reward: each compared with what a critic expects (PPO)."""
    from nacre.tiers.tune.reinforcing_worker import tune_reinforced

    return tune_reinforced(config, work)
