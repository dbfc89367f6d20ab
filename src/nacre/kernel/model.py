"""One Transformer: every family is a combination of the choices in its config.

Shapes: B batch, T tokens, S tokens of the decoder, D hidden, V vocabulary, C classes.
Names of parameters are the canonical ones by which checkpoints of all families are compared:
`embed.*`, `encoder.* | decoder.*` (`layers.I.{attention,cross,ffn}[_norm].*`, `norm`, `relative`), and the heads
`lm_head mlm pooler nsp classifier`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nacre.errors import ConfigError, DataError
from nacre.kernel.adapters.prompt import led
from nacre.kernel.cache import Cache
from nacre.kernel.config import Head, KernelConfig, Pooling
from nacre.kernel.embedding import Embedding
from nacre.kernel.heads import MaskedHead, pool
from nacre.kernel.init import initialise
from nacre.kernel.position import Rotary, Span, positions_in_segments
from nacre.kernel.stack import Scene, Stack


class Output(NamedTuple):
    """`hidden` (B, T, D) of the last stack after its last norm; `encoder_hidden` (B, T, D) of an encoder-decoder."""

    hidden: Tensor
    encoder_hidden: Tensor | None = None


class Kernel(nn.Module):
    """A model built from `config`, freshly initialised from `generator` or torch's global one.

    Dropout acts in training mode only. Under `torch.device("meta")` nothing is allocated or initialised.
    """

    def __init__(self, config: KernelConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.embed = Embedding(config)
        both = config.layout == "encoder-decoder"
        depth = config.stack_layers
        self.encoder = Stack(config, depth["encoder"], causal=False, cross=False) if "encoder" in depth else None
        self.decoder = Stack(config, depth["decoder"], causal=True, cross=both) if "decoder" in depth else None
        rotary = config.position == "rotary"
        self.rotary = Rotary(config.rope, config.head_width, config.max_positions) if rotary else None
        self._add_head()
        self._rates: list[tuple[nn.Module, float]] | None = None
        initialise(self, config, generator)

    def _add_head(self) -> None:
        config, size = self.config, self.config.hidden_size
        own_matrix = config.head == "lm" and not config.tied
        self.lm_head = nn.Linear(size, config.vocab_size, bias=False) if own_matrix else None
        self.mlm = MaskedHead(config) if config.head in ("mlm", "pretraining") else None
        self.pooler = nn.Linear(size, size) if config.pooler else None
        self.nsp = nn.Linear(size, 2) if config.head == "pretraining" else None
        classes = len(config.labels)
        bias = not (config.head == "classify" and config.pooling == "last" and config.layout == "decoder")
        self.classifier = nn.Linear(size, classes, bias=bias) if config.head in ("classify", "tag") else None

    def forward(
        self,
        ids: Tensor | None,
        *,
        mask: Tensor | None = None,
        token_types: Tensor | None = None,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        decoder_ids: Tensor | None = None,
        decoder_mask: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Output:
        """Hidden states of `ids` (B, T), or of pixels (B, channels, height, width).

        `mask` (B, T) is True where a token is real; leave it out where all are, which is faster. A decoder counts
        positions over real tokens, so padding on either side changes nothing and takes none of `max_positions`.
        `segments` (B, T) holds one id per packed document: documents do not see each other and their positions restart.
        `positions` (B, T) overrides both. With a `cache`, `ids` are the tokens that follow what it holds. An
        encoder-decoder kernel takes `decoder_ids` (B, S) and returns the decoder's states; with a cache that has seen
        the encoder's text, `ids` is None. Raises DataError for a text longer than `max_positions`, ConfigError for
        inputs that this layout cannot take.
        """
        self._check_inputs(ids, segments, decoder_ids, cache)
        if self.config.layout == "encoder-decoder":
            return self._encode_decode(ids, mask, decoder_ids, decoder_mask, cache)
        assert ids is not None
        past = 0 if cache is None else cache.length
        prompt = 0 if past else self._prompt(segments)
        if prompt:
            ids, mask, token_types, positions = led(prompt, ids, mask, token_types, positions)
        length = self.config.max_positions if ids.dim() == 4 else ids.shape[1]
        self._check_length(length, mask, cache)
        if cache is not None:
            keep = cache.extend(mask, ids.shape[0], length, ids.device)
            positions = self._positions(ids, keep, None, past) if positions is None else positions
        else:
            keep = mask
            positions = self._positions(ids, mask, segments, past) if positions is None else positions
        first = self.prefix
        positions = positions if positions is None else positions + first
        x = self.embed(ids, positions, first + past, token_types)
        end = min(first + past + length, self.config.max_positions)
        rope = None if self.rotary is None else self.rotary(positions, first + past, end)
        scene = Scene(Span(past, length), keep=keep, segments=segments, rope=rope, cache=cache)
        stack = self.decoder if self.decoder is not None else self.encoder
        assert stack is not None
        hidden = stack(x, scene)
        return Output(hidden[:, prompt:] if prompt else hidden)

    @property
    def prefix(self) -> int:
        """Positions that learnt keys take before the first of a text (0 where positions are no part of the input)."""
        stack = self.decoder if self.decoder is not None else self.encoder
        assert stack is not None
        return stack.prefix if self.config.position in ("learned", "rotary") and not self.config.is_vision else 0

    @property
    def room(self) -> int | None:
        """Tokens that a text may have; None where nothing bounds it. Prefixes and prompts take some of it."""
        bounded = self.config.position in ("learned", "rotary")
        return self.config.max_positions - self.prefix - self._prompt() if bounded else None

    def lm_logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., V), for the heads `lm`, `mlm` and `pretraining`."""
        if self.mlm is not None:
            logits: Tensor = self.mlm(hidden, self._token_matrix())
            return logits
        if self.config.head != "lm":
            raise self._no_head("lm_logits", "lm, mlm or pretraining")
        if self.config.logit_scale != 1.0:
            hidden = hidden * self.config.logit_scale
        return F.linear(hidden, self._token_matrix() if self.lm_head is None else self.lm_head.weight)

    def nsp_logits(self, hidden: Tensor) -> Tensor:
        """(B, T, D) to (B, 2): the second sentence follows the first (0), or is from elsewhere (1)."""
        if self.nsp is None:
            raise self._no_head("nsp_logits", "pretraining")
        logits: Tensor = self.nsp(self._pooled(hidden[:, 0]))
        return logits

    def class_logits(self, hidden: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, C) through `config.pooling`; `mask` (B, T) is True at real tokens."""
        if self.classifier is None or self.config.head != "classify":
            raise self._no_head("class_logits", "classify")
        pooled = self._pooled(pool(hidden, mask, self.config.pooling))
        logits: Tensor = self.classifier(self._drop(pooled))
        return logits

    def tag_logits(self, hidden: Tensor) -> Tensor:
        """(B, T, D) to (B, T, C)."""
        if self.classifier is None or self.config.head != "tag":
            raise self._no_head("tag_logits", "tag")
        logits: Tensor = self.classifier(self._drop(hidden))
        return logits

    def with_head(
        self,
        head: Head,
        *,
        labels: Sequence[str] = (),
        pooling: Pooling | None = None,
        generator: torch.Generator | None = None,
    ) -> Kernel:
        """A kernel that shares this one's body, and its pooler where both have one, under a fresh head."""
        changes: dict[str, Any] = {"head": head, "labels": tuple(labels), "pooling": pooling or self.config.pooling}
        changes["pooler"] = self.config.pooler if head == "none" else None
        config = self.config.replace(**changes)
        with torch.device("meta"):
            other = Kernel(config)
        reference = next(self.parameters())
        for name, module in list(other.named_children()):
            mine = getattr(self, name)
            if name in ("embed", "encoder", "decoder", "rotary") or (name == "pooler" and mine is not None):
                setattr(other, name, mine)
            else:
                module.to_empty(device=reference.device)
                module.to(reference.dtype)
                initialise(nn.ModuleDict({name: module}), config, generator)
        return other.train(self.training)

    def set_checkpointing(self, enabled: bool = True) -> None:
        """Recomputes each layer in the backward pass instead of keeping its activations; gradients stay the same."""
        for stack in (self.encoder, self.decoder):
            if stack is not None:
                stack.checkpointing = enabled

    def set_dropout(self, enabled: bool = True) -> None:
        """Whether dropout acts in training mode, at the rates of `config`. Adapters keep their own."""
        if enabled:
            for module, rate in self._rates or ():
                module.dropout = rate  # type: ignore[assignment]
            self._rates = None
        elif self._rates is None:
            rates = ((module, getattr(module, "dropout", None)) for module in self.modules())
            self._rates = [(module, rate) for module, rate in rates if isinstance(rate, float)]
            for module, _ in self._rates:
                module.dropout = 0.0  # type: ignore[assignment]

    def layers(self) -> Iterator[tuple[str, nn.Module]]:
        """(name, module) from the input to the heads; every parameter is in exactly one of them."""
        for name, module in self.named_children():
            if not isinstance(module, Stack):
                if next(module.parameters(), None) is not None:
                    yield name, module
                continue
            if module.relative is not None:
                yield f"{name}.relative", module.relative
            for index, layer in enumerate(module.layers):
                yield f"{name}.layers.{index}", layer
            if module.norm is not None:
                yield f"{name}.norm", module.norm

    def _encode_decode(
        self,
        ids: Tensor | None,
        mask: Tensor | None,
        decoder_ids: Tensor | None,
        decoder_mask: Tensor | None,
        cache: Cache | None,
    ) -> Output:
        assert self.encoder is not None
        assert self.decoder is not None
        assert decoder_ids is not None
        if cache is not None and cache.encoder_hidden is not None:
            memory, mask = cache.encoder_hidden, cache.encoder_mask
        else:
            assert ids is not None
            if prompt := self._prompt():
                ids, mask, _, _ = led(prompt, ids, mask, None, None)
            x = self.embed(ids, None)
            memory = self._drop_last(self.encoder(x, Scene(Span(0, ids.shape[1]), keep=mask)))
            if cache is not None:
                cache.encoder_hidden, cache.encoder_mask = memory, mask
        past, new = 0 if cache is None else cache.length, decoder_ids.shape[1]
        keep = decoder_mask
        if cache is not None:
            keep = cache.extend(decoder_mask, decoder_ids.shape[0], new, decoder_ids.device)
        scene = Scene(Span(past, new), keep=keep, memory=memory, memory_keep=mask, cache=cache)
        hidden = self.decoder(self.embed(decoder_ids, None, past), scene)
        return Output(self._drop_last(hidden), memory)

    def _positions(self, ids: Tensor, keep: Tensor | None, segments: Tensor | None, past: int) -> Tensor | None:
        """Positions (B, T) from 0 where they are not simply `past` and onwards, else None."""
        if self.config.position not in ("learned", "rotary") or self.config.is_vision:
            return None
        if segments is not None:
            return positions_in_segments(segments)
        if self.config.positions_skip_padding:
            # As in `transformers`: padding stands one before the first position, whatever the mask says.
            real = ids.ne(self.config.pad_id or 0)
            return torch.where(real, real.cumsum(dim=1) - 1, -1)
        if keep is None or self.config.layout == "encoder":
            return None
        counted: Tensor = (keep.cumsum(dim=1) - 1).clamp(min=0)[:, past:]
        return counted

    def _prompt(self, segments: Tensor | None = None) -> int:
        """How many learnt embeddings stand before a text."""
        length = 0 if self.embed.adapters is None else self.embed.adapters.length
        if length and segments is not None:
            what = "a learnt prompt stands before one text, and these rows hold several (packed documents)"
            raise ConfigError(what, remedy="packing: none")
        return length

    def _token_matrix(self) -> Tensor:
        assert self.embed.tokens is not None
        return self.embed.tokens.weight

    def _pooled(self, first: Tensor) -> Tensor:
        """BERT's pooler over the first token's state, (B, D) to (B, D), where this head has one."""
        return first if self.pooler is None else torch.tanh(self.pooler(first))

    def _drop(self, x: Tensor) -> Tensor:
        rate = self.config.dropout if self.config.head_dropout is None else self.config.head_dropout
        return F.dropout(x, rate) if self.training and rate and self._rates is None else x

    def _drop_last(self, x: Tensor) -> Tensor:
        rate = self.config.dropout if self._rates is None else 0.0
        return F.dropout(x, rate) if self.training and rate else x

    def _no_head(self, wanted: str, heads: str) -> ConfigError:
        what = f"{wanted} needs the head {heads}; this kernel has {self.config.head!r}"
        return ConfigError(what, remedy=f"kernel.with_head(...) with one of: {heads}")

    def _check_length(self, new: int, mask: Tensor | None, cache: Cache | None) -> None:
        limit, past = self.config.max_positions - self.prefix, 0 if cache is None else cache.length
        if past + new <= limit or self.config.position not in ("learned", "rotary"):
            return
        length = past + new
        if self.config.layout == "decoder":
            held = past if cache is None or cache.mask is None else cache.mask.sum(dim=1)
            length = int(torch.as_tensor(held + (new if mask is None else mask.sum(dim=1))).max())
        if length > limit:
            raise DataError(
                f"a text of {length} tokens does not fit into {limit} positions",
                remedy="truncate or window the text, or build the kernel with a larger max_positions",
            )

    def _check_inputs(
        self, ids: Tensor | None, segments: Tensor | None, decoder_ids: Tensor | None, cache: Cache | None
    ) -> None:
        both = self.config.layout == "encoder-decoder"
        if both != (decoder_ids is not None):
            wanted = "needs decoder_ids" if both else "takes no decoder_ids"
            raise ConfigError(f"the layout {self.config.layout!r} {wanted}", remedy="see Kernel.forward")
        if ids is None and (not both or cache is None or cache.encoder_hidden is None):
            raise ConfigError(
                "ids is None", remedy="give ids; only a cache that holds an encoder's output replaces them"
            )
        if segments is not None and (both or cache is not None):
            what = "segments (packed documents) work for one stack without a cache"
            raise ConfigError(what, remedy="one text per row, with a mask")
        if self.config.overflows_float16:
            self._refuse_float16()
        if cache is not None and self.config.layout == "encoder":
            raise ConfigError("an encoder has no cache", remedy="leave cache out")

    def _refuse_float16(self) -> None:
        weight = self._token_matrix()
        device = weight.device.type
        cast = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
        if cast or weight.dtype == torch.float16:
            what = "T5 in float16: its feed-forward leaves the range of float16 and the loss becomes NaN"
            raise ConfigError(what, remedy="use bfloat16 or float32")
