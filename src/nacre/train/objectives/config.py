"""The settings of every objective and of its loss, as plain values: free of torch, so that plans can check them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nacre.errors import ConfigError

Weighting = Literal["none", "inverse", "effective"]
Balance = Literal["none", "over", "under"]


@dataclass(frozen=True)
class TokenLoss:
    """How the loss of a token is computed.

    `softcap` c bounds logits to (-c, c) by c * tanh(logits / c) (Gemma 2, section 2); `z_loss` adds that many times the
    squared log-partition (PaLM, section 5); `chunk` positions at a time go through the head, 0 means all at once.
    """

    label_smoothing: float = 0.0
    softcap: float | None = None
    z_loss: float = 0.0
    chunk: int = 0

    def __post_init__(self) -> None:
        _check_share("label_smoothing", self.label_smoothing)
        if self.softcap is not None and self.softcap <= 0:
            raise ConfigError(f"softcap is {self.softcap}", remedy="give a positive bound, or leave it out")
        if self.z_loss < 0 or self.chunk < 0:
            raise ConfigError(f"z_loss is {self.z_loss}, chunk is {self.chunk}", remedy="give values of 0 or more")


@dataclass(frozen=True)
class ClassLoss:
    """How the loss of a row is computed.

    `weights`: one per class, best with mean 1 over the training rows (`nacre.train.sampling.class_weights`);
    `focal_gamma` multiplies the loss of a row by (1 - p)^gamma, where p is the probability of its class
    (Lin et al. 2017, equation 4; the weights are its alpha).
    """

    label_smoothing: float = 0.0
    focal_gamma: float = 0.0
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _check_share("label_smoothing", self.label_smoothing)
        if self.focal_gamma < 0:
            raise ConfigError(f"focal_gamma is {self.focal_gamma}", remedy="give 0 (off) or more; 2 is customary")
        if self.focal_gamma and self.label_smoothing:
            raise ConfigError(
                "focal_gamma and label_smoothing are both set, and their product is defined nowhere",
                remedy="set one of them to 0",
            )


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ConfigError(f"{name} is {value}", remedy="give a share from 0 (off) up to, but not including, 1")


def _check_context(context: int, name: str = "context") -> None:
    if context < 3:  # two special tokens and one of text
        raise ConfigError(f"{name} is {context}", remedy="give the tokens of an example, 128 say")


@dataclass(frozen=True)
class MaskRates:
    """`selected`: share of the tokens that are predicted. Of these, `masked` become the mask token, `random` become
    another token, and the rest stay what they are."""

    selected: float = 0.15
    masked: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.selected < 1:
            raise ConfigError(f"selected is {self.selected}", remedy="give a share between 0 and 1; 0.15 is customary")
        if self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
            raise ConfigError(
                f"masked is {self.masked} and random is {self.random}", remedy="give shares that add up to at most 1"
            )


@dataclass(frozen=True)
class CausalConfig:
    """`context`: positions of a block. `packing`: how documents share blocks.

    - `documents`: several in a block, isolated from each other, positions restart with each;
    - `stream`: all documents as one text, cut into blocks, each seeing those before it in its block (GPT-2);
    - `none`: one document, or one piece of a longer one, per example.

    `add_eos`: end every document with the end-of-sequence token, and train it. `count_bytes`: keep the bytes that
    every token spells, for `predict`.
    """

    context: int = 256
    packing: Literal["documents", "stream", "none"] = "documents"
    add_eos: bool = True
    count_bytes: bool = False
    loss: TokenLoss = field(default_factory=TokenLoss)

    def __post_init__(self) -> None:
        _check_context(self.context)


@dataclass(frozen=True)
class MaskedConfig:
    """`context`: tokens of an example, special ones included. `whole_words`: mask all tokens of a word or none, Chinese
    words by segmenter (Cui et al. 2021, "Pre-training with whole word masking for Chinese BERT")."""

    context: int = 128
    whole_words: bool = True
    rates: MaskRates = field(default_factory=MaskRates)
    loss: TokenLoss = field(default_factory=TokenLoss)

    def __post_init__(self) -> None:
        _check_context(self.context)


@dataclass(frozen=True)
class PairConfig:
    """`context`: tokens of a pair, special ones included. `relation`: what the second part is when it does not follow:

    - `nsp`: sentences of another document;
    - `sop`: the sentences before it, the two parts exchanged.

    `rates`: what is masked besides; None trains the relation alone.
    """

    context: int = 128
    relation: Literal["nsp", "sop"] = "nsp"
    whole_words: bool = True
    rates: MaskRates | None = field(default_factory=MaskRates)
    loss: TokenLoss = field(default_factory=TokenLoss)

    def __post_init__(self) -> None:
        _check_context(self.context)


@dataclass(frozen=True)
class SpanConfig:
    """`context`: the most tokens that encoder and decoder see of one example. `density`: share of the text that is
    noise, `mean_span`: its mean span in tokens. `start_id` as in `Seq2SeqConfig`."""

    context: int = 256
    density: float = 0.15
    mean_span: float = 3.0
    start_id: int | None = None
    loss: TokenLoss = field(default_factory=TokenLoss)

    def __post_init__(self) -> None:
        _check_context(self.context)
        if not 0 < self.density < 1:
            raise ConfigError(f"density is {self.density}", remedy="give a share between 0 and 1; T5 takes 0.15")
        if self.mean_span < 1:
            raise ConfigError(f"mean_span is {self.mean_span}", remedy="give 1 token or more; T5 takes 3")


@dataclass(frozen=True)
class Seq2SeqConfig:
    """`context`, `target_context`: tokens of a source and of a target, their ends included. Longer ones are cut and
    counted; a target that was cut has no end to be trained. `start_id` begins the decoder's input (None: padding, as
    T5 does)."""

    context: int = 256
    target_context: int = 256
    start_id: int | None = None
    loss: TokenLoss = field(default_factory=TokenLoss)

    def __post_init__(self) -> None:
        _check_context(self.context)
        _check_context(self.target_context, "target_context")


@dataclass(frozen=True)
class ClassifyConfig:
    """`context`: tokens of an example, special ones included; longer texts are cut at the end and counted.

    `weighting` weighs the classes by their training rows (see `class_weights`, whose `beta` this is).
    Training only, drawn anew for every batch: `subword_dropout` refuses each match of a word's segmentation with this
    probability (`nacre.data.resegment`), `token_dropout` replaces that share of the tokens by the mask token.
    """

    context: int = 128
    weighting: Weighting = "none"
    beta: float = 0.999
    subword_dropout: float = 0.0
    token_dropout: float = 0.0
    loss: ClassLoss = field(default_factory=ClassLoss)

    def __post_init__(self) -> None:
        _check_context(self.context)
        _check_share("subword_dropout", self.subword_dropout)
        _check_share("token_dropout", self.token_dropout)


@dataclass(frozen=True)
class TagConfig:
    """`context`: sub-tokens of an example, special ones included; longer rows become several windows.

    `overlap`: sub-tokens that neighbouring windows share; each token is trained and tagged in one of them only, where
    it has more context. `trained`: the `first` sub-token of a token, or `all`, where a B- goes on as I-; the tag of
    a token is read at its first sub-token either way.
    """

    context: int = 128
    overlap: int = 32
    trained: Literal["first", "all"] = "first"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check_context(self.context)
        _check_share("label_smoothing", self.label_smoothing)
        if not 0 <= self.overlap < self.context:
            raise ConfigError(
                f"windows of {self.context} tokens cannot overlap by {self.overlap}",
                remedy="lower the overlap, a quarter of the context as a rule, or raise the context",
            )


@dataclass(frozen=True)
class ContrastConfig:
    """`context`, `positive_context`: tokens of a query and of what it should find; longer texts are cut and counted.

    Cosines are divided by `temperature`. `symmetric` also picks the query among those of the batch for each positive.
    """

    context: int = 64
    positive_context: int = 128
    temperature: float = 0.05
    symmetric: bool = False
    pooling: Literal["mean", "cls", "last"] = "mean"

    def __post_init__(self) -> None:
        _check_context(self.context)
        _check_context(self.positive_context, "positive_context")
        if not self.temperature > 0:
            raise ConfigError(f"temperature is {self.temperature}", remedy="give a number above 0; 0.05 is customary")


@dataclass(frozen=True)
class ImageConfig:
    """Images are (`channels`, `size`, `size`); values become (value - `mean`) / `std`."""

    size: int = 224
    channels: int = 1
    mean: float = 0.0
    std: float = 1.0
    weighting: Weighting = "none"
    beta: float = 0.999
    loss: ClassLoss = field(default_factory=ClassLoss)


@dataclass(frozen=True)
class AdversarialConfig:
    """Training on changed embeddings (`adversarial.py` says what each method does). `epsilon`: radius of the change of
    one example, an L2 norm over its positions and dimensions; `alpha`: length of a step of `pgd` and `freelb`;
    `weight`: of the loss on the changed embeddings, beside that on the clean ones (`fgm`, `pgd`)."""

    method: Literal["fgm", "pgd", "freelb"] = "fgm"
    epsilon: float = 1.0
    alpha: float = 0.3
    steps: int = 3
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epsilon", "alpha", "weight"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} is {getattr(self, name)}", remedy="give a number above 0")
        if self.steps < 1:
            raise ConfigError(f"steps is {self.steps}", remedy="give 1 or more; 3 is customary")


@dataclass(frozen=True)
class RDropConfig:
    """`alpha`: weight of the disagreement of two passes (Liang et al. 2021: 1 to 5)."""

    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < float("inf"):
            raise ConfigError(f"alpha is {self.alpha}", remedy="give a number above 0; 1 to 5 are customary")


@dataclass(frozen=True)
class RobustConfig:
    """What a tuning step does against noise, one of the two."""

    adversarial: AdversarialConfig | None = None
    rdrop: RDropConfig | None = None

    def __post_init__(self) -> None:
        if self.adversarial is not None and self.rdrop is not None:
            raise ConfigError("robust: both adversarial and rdrop", remedy="give one of them, and compare the two runs")
