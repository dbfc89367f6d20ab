"""The settings of reinforcement as plain values: free of torch, so that plans can check them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Literal

from nacre.engine.room import Budget
from nacre.errors import ConfigError
from nacre.train.config import TrainConfig


def _above(owner: str, config: Any, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 < value < inf:
            raise ConfigError(f"{owner}: {name} is {value}", remedy="give a number above 0")


def _at_least_0(owner: str, config: Any, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(config, name) < inf:
            raise ConfigError(f"{owner}: {name} is {getattr(config, name)}", remedy="give 0 or more")


# --- what is rewarded. One class per reward; `weight` is what its values, before they are added, are multiplied by.


@dataclass(frozen=True)
class Exact:
    """1 where the answer is the row's `expected` (or one of a list), but for the blanks around it; else 0."""

    weight: float = 1.0


@dataclass(frozen=True)
class Number:
    """1 where the last number of the answer is the last number of `expected` (as GSM8K is scored); else 0."""

    weight: float = 1.0


@dataclass(frozen=True)
class Format:
    """1 where the whole answer matches the regular expression `pattern` (`.` matches line ends too); else 0."""

    pattern: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(f"format: the pattern {self.pattern!r} is wrong: {error}", remedy="correct it") from error


@dataclass(frozen=True)
class Programs:
    """The share of the row's `tests` (Python statements) that pass after the code of the answer was run.

    `timeout_s`, `cpu_s`, `memory_mib` and `file_mib` bound each answer's process, `parallel` how many run at once. On
    by default is `isolated`: refuse to run where the network cannot be taken from the process.
    """

    weight: float = 1.0
    timeout_s: float = 10.0
    cpu_s: int = 5
    memory_mib: int = 512
    file_mib: int = 16
    parallel: int = 2
    isolated: bool = True

    def __post_init__(self) -> None:
        _above("tests", self, "timeout_s", "cpu_s", "memory_mib", "file_mib", "parallel")


@dataclass(frozen=True)
class Length:
    """0 up to `limit` - `margin` tokens, falling to -1 at `limit`; -1 for an answer that was cut (the soft overlong
    punishment of Yu et al. 2025, DAPO, equation 13)."""

    limit: int
    margin: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        _above("length", self, "limit", "margin")
        if self.margin > self.limit:
            raise ConfigError(f"length: margin {self.margin} is above limit {self.limit}", remedy="lower the margin")


@dataclass(frozen=True)
class Model:
    """The reward of the model given as the step's input `reward_model`, at most `clip` from 0. `template` as there."""

    weight: float = 1.0
    context: int = 512
    clip: float | None = None
    template: str | None = None

    def __post_init__(self) -> None:
        _above("model", self, "context", "clip")


@dataclass(frozen=True)
class Judge:
    """What the engine given as the step's input `judge` says of an answer by the `rubric`: a number from `low` to
    `high`, of which 0 is made at `low` and 1 at `high`. It is asked greedily, with `max_tokens` to say why and what.

    An answer that it gave no such number, or could not be asked about, is not punished for that: it earns the mean of
    the others to its prompt. Such answers are counted, and more than the share `most_unscored` of those asked about at
    once stops the run. `terms` and `budget` as in `teach.collect`.
    """

    rubric: str
    low: float = 0.0
    high: float = 10.0
    weight: float = 1.0
    max_tokens: int = 256
    most_unscored: float = 0.1
    terms: str = ""
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        _above("judge", self, "max_tokens")
        if not self.rubric.strip():
            raise ConfigError("judge: the rubric is empty", remedy="say in words which answers are good and which bad")
        if not -inf < self.low < self.high < inf:
            raise ConfigError(f"judge: {self.low:g} to {self.high:g} is no range", remedy="give low < high")
        if not 0 <= self.most_unscored < 1:
            raise ConfigError(f"judge: most_unscored is {self.most_unscored}", remedy="give a share below 1, 0.1 say")


@dataclass(frozen=True)
class RewardsConfig:
    """What answers earn: the weighted sum of the parts that are given. Every part is logged on its own."""

    exact: Exact | None = None
    number: Number | None = None
    format: Format | None = None
    tests: Programs | None = None
    length: Length | None = None
    model: Model | None = None
    judge: Judge | None = None

    def __post_init__(self) -> None:
        if not self.parts:
            known = ", ".join(one.name for one in fields(self))
            raise ConfigError("nothing is rewarded", remedy=f"give one or more under rewards: {known}")
        for name, part in self.parts.items():
            if not (-inf < part.weight < inf and part.weight):
                raise ConfigError(f"rewards: the weight of {name} is {part.weight}", remedy="give a number, not 0")

    @property
    def parts(self) -> dict[str, Any]:
        """The parts that are given, by name."""
        return {one.name: value for one in fields(self) if (value := getattr(self, one.name)) is not None}


# --- how answers are drawn and learnt


@dataclass(frozen=True)
class RolloutConfig:
    """`prompts` of each iteration, `samples` answers to each, of at most `max_new_tokens` tokens. `max_prompt`: longer
    prompts are dropped, and counted. `batch`: answers written at once.

    `temperature`, `top_k`, `top_p` shape the distribution that is drawn from; the same distribution is trained, its
    truncation as it was when the answer was drawn ("keep sampling mask", DeepSeek-AI 2025, DeepSeek-V3.2).
    """

    prompts: int = 32
    samples: int = 8
    max_new_tokens: int = 128
    max_prompt: int = 512
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    batch: int = 256

    def __post_init__(self) -> None:
        _above("rollouts", self, "prompts", "samples", "max_new_tokens", "max_prompt", "batch", "top_k")
        if not 0 < self.temperature < inf:
            raise ConfigError(
                f"rollouts: temperature is {self.temperature}: answers to a prompt would all be the same",
                remedy="give a number above 0; 1 draws from the model itself",
            )
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"rollouts: top_p is {self.top_p}", remedy="give a share above 0 and at most 1")


@dataclass(frozen=True)
class PpoRolloutConfig(RolloutConfig):
    """One answer to each of many prompts: the critic needs no group."""

    prompts: int = 256
    samples: int = 1


@dataclass(frozen=True)
class UpdateConfig:
    """How the weights follow the rollouts of an iteration: `epochs` passes over them, `batch_size` answers a step in
    parts of `micro_batch`. Dropout is off throughout, so that both sides compute the same probabilities. The rest as in
    `TrainConfig`; the schedule runs over all iterations."""

    epochs: int = 1
    batch_size: int = 64
    micro_batch: int | None = None
    optimizer: str = "adamw"
    lr: float = 1e-5
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 1.0
    schedule: str = "constant"
    warmup: float = 0.0
    freeze: tuple[str, ...] = ()
    precision: str = "float32"

    def __post_init__(self) -> None:
        _above("update", self, "epochs", "batch_size", "micro_batch")
        self.train(0, 1)

    def train(self, seed: int, steps: int) -> TrainConfig:
        """The settings of the learner for a run of so many steps."""
        shared = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "epochs"}
        return TrainConfig(max_steps=steps, seed=seed, **shared)


@dataclass(frozen=True)
class PpoUpdateConfig(UpdateConfig):
    epochs: int = 4


@dataclass(frozen=True)
class KlConfig:
    """How far the policy may leave the reference, the model that the run starts from.

    `coefficient` multiplies the divergence; with a `target` (nats per answer) it follows the divergence that is
    measured (Ziegler et al. 2019, section 2.2, gain 0.1). `max_per_token`: nats per token at which a run is stopped.
    """

    coefficient: float = 0.04
    target: float | None = None
    max_per_token: float = 5.0

    def __post_init__(self) -> None:
        _at_least_0("kl", self, "coefficient")
        _above("kl", self, "target", "max_per_token")
        if self.target is not None and not self.coefficient:
            raise ConfigError("kl: an adaptive coefficient that begins at 0 stays 0", remedy="give a coefficient")


@dataclass(frozen=True)
class LossKlConfig(KlConfig):
    """The divergence in the loss. `estimator`: `k3` is the paper's, whose gradient is that of KL(reference, policy) on
    average; `k2` that of KL(policy, reference)."""

    estimator: Literal["k1", "k2", "k3"] = "k3"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.estimator == "k1":
            raise ConfigError(
                "kl: the gradient of k1 in a loss is 0 on average, whatever the divergence",
                remedy="estimator: k3 or k2; k1 is for rewards (tune.ppo)",
            )


Normalise = Literal["token", "sequence", "constant"]


@dataclass(frozen=True)
class PolicyConfig:
    """The clipped policy loss (Schulman et al. 2017, equation 7).

    The ratio is held within [1 - `clip_low`, 1 + `clip_high`]. `normalise`: the mean over all tokens (`token`, DAPO's),
    over the means of answers (`sequence`, GRPO's), or the sum of an answer over `max_new_tokens` (`constant`, Dr.
    GRPO's). `entropy` times the entropy is added to what is maximised. `chunk` as in `TokenLoss`.
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    normalise: Normalise = "token"
    entropy: float = 0.0
    chunk: int = 0

    def __post_init__(self) -> None:
        _above("policy", self, "clip_low", "clip_high")
        _at_least_0("policy", self, "entropy", "chunk")
        if self.clip_low >= 1:
            raise ConfigError(f"policy: clip_low is {self.clip_low}", remedy="give a share below 1, 0.2 say")


@dataclass(frozen=True)
class CriticConfig:
    """PPO's value head: generalised advantages (Schulman et al. 2016, equation 16) with `gamma` and `lam`; `whiten`ed
    over an iteration. The value loss counts `weight`; `clip` bounds how far a value moves from that of the rollout."""

    gamma: float = 1.0
    lam: float = 0.95
    whiten: bool = True
    weight: float = 0.1
    clip: float | None = None

    def __post_init__(self) -> None:
        _above("critic", self, "weight", "clip")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"critic: {name} is {getattr(self, name)}", remedy="give a number from 0 to 1")


@dataclass(frozen=True)
class LoopConfig:
    """`iterations` of rollouts and updates. `mask_cut`: answers that were cut at `max_new_tokens` are not learnt from
    (DAPO's overlong filtering), where otherwise they are and earn what their rewards give a cut answer.

    `patience`: iterations after which a run is stopped whose rewards are all the same, or whose answers are all cut.
    `eval_every`: iterations between two looks at the validation prompts, answered greedily, `eval_limit` at most.
    `rollouts_kept`: of each iteration's answers so many are written to `rollouts.jsonl` (None: all).
    """

    iterations: int = 100
    mask_cut: bool = False
    patience: int = 10
    eval_every: int = 10
    eval_limit: int = 256
    checkpoint_every: int = 1
    rollouts_kept: int | None = None

    def __post_init__(self) -> None:
        names = ("iterations", "patience", "eval_every", "eval_limit", "checkpoint_every")
        _above("loop", self, *names)
        if self.rollouts_kept is not None and self.rollouts_kept < 0:
            raise ConfigError(f"loop: rollouts_kept is {self.rollouts_kept}", remedy="give 0 or more")


@dataclass(frozen=True)
class GrpoConfig:
    """Group-relative advantages (Shao et al. 2024, section 4.1.1): rewards less the mean of the answers to the same
    prompt, over their standard deviation (`scale: std`) or not (`none`, Dr. GRPO, Liu et al. 2025). The divergence from
    the reference is part of the loss (equation 4)."""

    rewards: RewardsConfig
    scale: Literal["std", "none"] = "std"
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    kl: LossKlConfig = field(default_factory=LossKlConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.rollouts.samples < 2:
            raise ConfigError("grpo: one sample has no group to be compared with", remedy="give rollouts.samples: 8")
        _check_length(self.rollouts, self.rewards)


@dataclass(frozen=True)
class PpoConfig:
    """Proximal policy optimisation with a value head beside the language-model head. Each token pays for its divergence
    from the reference, the last one earns the reward (Ziegler et al. 2019, section 2.2). The divergence is estimated by
    k1: in a reward the others have another gradient than that of the divergence."""

    rewards: RewardsConfig
    critic: CriticConfig = field(default_factory=CriticConfig)
    rollouts: PpoRolloutConfig = field(default_factory=PpoRolloutConfig)
    update: PpoUpdateConfig = field(default_factory=PpoUpdateConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    kl: KlConfig = field(default_factory=KlConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        _check_length(self.rollouts, self.rewards)


Settings = GrpoConfig | PpoConfig


def _check_length(rollouts: RolloutConfig, rewards: RewardsConfig) -> None:
    if rewards.length is not None and rewards.length.limit > rollouts.max_new_tokens:
        raise ConfigError(
            f"rewards: length.limit {rewards.length.limit} is above max_new_tokens {rollouts.max_new_tokens}",
            remedy="no answer gets that long: lower it",
        )
