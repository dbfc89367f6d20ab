"""The settings of objectives that teach and align, as plain values: free of torch, so that plans can check them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nacre.errors import ConfigError
from nacre.train.objectives.config import TokenLoss


@dataclass(frozen=True)
class SftConfig:
    """`context`: positions of a block. `packing`: `documents` puts several conversations in a block, isolated from each
    other, positions restarting with each; `none` keeps one per example.

    `trained`: every answer (`assistant`), the `last` one, or `all` tokens. `too_long`: of a conversation longer than
    the context the oldest `turns` go first, then the `end` of the last answer; or at once the `end`; or all of it
    (`drop`). An answer is never cut away whole where another could be kept: such conversations are dropped. Everything
    is counted. `target_context`, `start_id`: of the answers that an encoder-decoder writes, as in `Seq2SeqConfig`.
    """

    context: int = 512
    packing: Literal["documents", "none"] = "documents"
    trained: Literal["assistant", "last", "all"] = "assistant"
    too_long: Literal["turns", "end", "drop"] = "turns"
    target_context: int = 256
    start_id: int | None = None
    count_bytes: bool = False
    loss: TokenLoss = field(default_factory=TokenLoss)

    def __post_init__(self) -> None:
        for name in ("context", "target_context"):
            if getattr(self, name) < 3:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="give the tokens of an example, 512 say")


Kind = Literal["dpo", "ipo", "kto", "orpo", "simpo"]
BETA: dict[Kind, float] = {"dpo": 0.1, "ipo": 0.1, "kto": 0.1, "orpo": 0.1, "simpo": 2.0}
WITH_REFERENCE: tuple[Kind, ...] = ("dpo", "ipo", "kto")


@dataclass(frozen=True)
class PreferenceConfig:
    """How preferences are learnt.

    `dpo` (Rafailov et al. 2023, equation 7; `label_smoothing` is cDPO's), `ipo` (Azar et al. 2023, equation 17), `kto`
    (Ethayarajh et al. 2024, section 4.1; `good_weight` and `bad_weight` are its lambdas), `orpo` (Hong et al. 2024,
    equation 6), `simpo` (Meng et al. 2024, equation 6; `gamma` is its margin). `beta` is what each paper calls so (tau
    in IPO, lambda in ORPO); None takes 0.1, and 2 for SimPO. `normalise`: log-probabilities per token instead of their
    sum: None as the kind has it (IPO as its authors run it, ORPO and SimPO by definition); only DPO and IPO can choose.

    `context`: positions of prompt and answer together (of the prompt, for an encoder-decoder, whose answers have
    `target_context`). What is too long loses the beginning of its prompt first, both answers the same.
    `max_fall`: nats per token by which the good answers may become less likely before the run is stopped; `patience`:
    steps after which it is stopped when the margin has been the same for every pair. `chunk` as in `TokenLoss`.
    """

    kind: Kind = "dpo"
    beta: float | None = None
    label_smoothing: float = 0.0
    normalise: bool | None = None
    gamma: float = 1.0
    good_weight: float = 1.0
    bad_weight: float = 1.0
    context: int = 512
    target_context: int = 256
    start_id: int | None = None
    max_fall: float = 5.0
    patience: int = 50
    chunk: int = 0

    def __post_init__(self) -> None:
        for name in ("context", "target_context"):
            if getattr(self, name) < 8:
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="give the tokens of an example, 512 say")
        for name in ("max_fall", "patience", "good_weight", "bad_weight", *(["beta"] if self.beta is not None else [])):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="give a number above 0")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(
                f"label_smoothing is {self.label_smoothing}",
                remedy="give the share of labels that are wrong, from 0 up to, not including, 0.5",
            )
        if self.label_smoothing and self.kind not in ("dpo", "simpo"):
            raise ConfigError(f"label_smoothing has no meaning for {self.kind}", remedy="leave it out, or kind: dpo")
        if self.normalise is not None and self.kind not in ("dpo", "ipo"):
            raise ConfigError(
                f"{self.kind} says itself whether log-probabilities are per token", remedy="leave out normalise"
            )

    @property
    def strength(self) -> float:
        """beta, decided."""
        return BETA[self.kind] if self.beta is None else self.beta

    @property
    def per_token(self) -> bool:
        """Whether log-probabilities are divided by the tokens of the answer."""
        return self.kind in ("ipo", "orpo", "simpo") if self.normalise is None else self.normalise


@dataclass(frozen=True)
class RewardConfig:
    """-log sigmoid(r_chosen - r_rejected - margin) (Bradley-Terry; the margin of Llama 2, section 3.2.2: a number in a
    row's field `margin` goes before this one). `centre` adds that many times (r_chosen + r_rejected)^2, which keeps
    rewards around 0 (Eisenstein et al. 2023, section 3.1). `context`: positions of prompt and answer together; what is
    too long loses the beginning of its prompt first. `patience`: steps after which a run is stopped whose margin has
    been the same for every pair."""

    context: int = 512
    margin: float = 0.0
    centre: float = 0.0
    patience: int = 50

    def __post_init__(self) -> None:
        if self.context < 8:
            raise ConfigError(f"context is {self.context}", remedy="give the tokens of an example, 512 say")
        if not (0 <= self.margin < float("inf") and 0 <= self.centre < float("inf")):
            raise ConfigError(f"margin is {self.margin}, centre is {self.centre}", remedy="give 0 or more")
        if self.patience < 1:
            raise ConfigError(f"patience is {self.patience}", remedy="give 1 step or more")


@dataclass(frozen=True)
class LayerMatch:
    """The states of layers, drawn towards those of the teacher's. Layers count from 0, in the stack that predicts.

    `layers`: the student's to the teacher's (in a recipe `{"0": 1, "1": 3}`); `even`: spread over the teacher's depth,
    the last to the last (TinyBERT, Jiao et al. 2020, section 3.1); `last`: only that. `kind`: mean squared difference,
    or one minus the cosine. Where widths differ a linear projection stands between, trained beside the student and not
    kept. `weight` is the factor of this term, which is the mean over the pairs of layers.
    """

    layers: Literal["even", "last"] | dict[int, int] = "even"
    kind: Literal["mse", "cosine"] = "mse"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ConfigError(f"hidden.weight is {self.weight}", remedy="give a number above 0, or leave hidden out")
        if isinstance(self.layers, dict) and not self.layers:
            raise ConfigError("hidden.layers is empty", remedy="give pairs such as {'0': 1, '1': 3}, or: even")


@dataclass(frozen=True)
class OnPolicy:
    """GKD (Agarwal et al. 2024, algorithm 1): in that `share` of the batches the student writes the answers itself,
    and learns the teacher's distribution over what it wrote; the targets of the rows play no part in these."""

    share: float = 0.5
    max_new_tokens: int = 64
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"on_policy.share is {self.share}", remedy="give a share above 0, 0.5 say")
        if self.max_new_tokens < 1:
            raise ConfigError(f"on_policy.max_new_tokens is {self.max_new_tokens}", remedy="give 1 or more")
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(f"on_policy.temperature is {self.temperature}", remedy="give a number above 0")


@dataclass(frozen=True)
class DistilConfig:
    """(1 - `share`) * the loss of the rows + `share` * T^2 * D(teacher, student), over what the objective trains.

    `direction`: `forward` is KL(teacher || student) (Hinton et al. 2015), `reverse` KL(student || teacher) (MiniLLM),
    `jensen` the generalised Jensen-Shannon divergence of GKD with `beta`: its mixture is beta * teacher + (1 - beta) *
    student, and D / beta becomes the forward KL as beta goes to 0. Both distributions are taken at temperature T; the
    factor T^2 keeps the size of the gradient (Hinton, section 2). `hidden`: match states of layers too. `cache`: ask
    the teacher once about every training row, before training: for texts that are sorted into classes.
    """

    direction: Literal["forward", "reverse", "jensen"] = "forward"
    beta: float = 0.5
    temperature: float = 2.0
    share: float = 0.5
    hidden: LayerMatch | None = None
    on_policy: OnPolicy | None = None
    cache: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ConfigError(
                f"beta is {self.beta}", remedy="give a number between 0 and 1; at the ends stand forward and reverse"
            )
        if not 0 < self.temperature < float("inf"):
            raise ConfigError(
                f"temperature is {self.temperature}", remedy="give a number above 0, from 1 to 4 as a rule"
            )
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share is {self.share}", remedy="give the share of the teacher's part, from 0 to 1")
        if not self.share and self.hidden is None and self.on_policy is None:
            raise ConfigError("share is 0: nothing is learnt from the teacher", remedy="raise share, or set hidden")
        if self.cache and (self.hidden is not None or self.on_policy is not None):
            raise ConfigError(
                "a cache keeps what the teacher says of the rows, not its hidden states, nor of texts yet unwritten",
                remedy="leave out cache, or hidden and on_policy",
            )
