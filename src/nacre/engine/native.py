"""A checkpoint run by our own kernel. Imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.engine.local import (
    EMBEDDING_BATCH,
    IdPair,
    Loaded,
    LocalEngine,
    OnId,
    Written,
    longest_text,
    name_of,
    pooling_of,
)
from nacre.engine.protocol import Sampling, Stopped
from nacre.errors import CheckpointError
from nacre.kernel import hf
from nacre.kernel.generate import GenerationConfig, embed, generate, score
from nacre.kernel.sampling import SamplingConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nacre.engine.room import EngineRoom

STOPPED: dict[str, Stopped] = {"end": "end", "stop": "stop", "length": "length", "context": "length"}


def open_native(folder: Path, room: EngineRoom) -> Native:
    """The kernel in a folder; raises CheckpointError where it cannot be expressed, or reads no text."""
    return Native(folder, room.device)


class Native(LocalEngine):
    """Our kernel as an engine."""

    @property
    def takes_turns(self) -> bool:  # type: ignore[override]
        """See `kernel/running.py`: where positions are counted over real tokens, or by distance."""
        config = self.kernel.config
        return config.head == "lm" and (config.layout == "decoder" or config.position == "relative")

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        config = hf.load_config(folder)
        if config.is_vision:
            raise CheckpointError(f"{folder} is a model of images", remedy="an engine needs a model of texts")
        tokenizer = Tokenizer.load(folder)
        self.kernel = hf.load(folder, device)
        self.room = self.kernel.room
        if len(tokenizer) > config.vocab_size:
            raise CheckpointError(
                f"the tokenizer of {folder} has {len(tokenizer):,} tokens, the model {config.vocab_size:,}",
                remedy="put the model's own tokenizer beside it",
            )
        pooling, normalised = pooling_of(folder)
        super().__init__(
            "native",
            Loaded(
                folder,
                config.title,
                tokenizer,
                config.layout,
                self.kernel.config.head == "lm",
                longest_text(folder, self.kernel.room),
                config.hidden_size,
                pooling,
                normalised,
            ),
        )

    def adapted(self, folder: Path, adapter: str) -> Native:
        """The same kernel as an engine of the adapter that acts now: whoever calls it sees to it that the adapter acts.

        `folder` may hold a chat template of its own; `adapter` is the digest of the adapter's files.
        """
        other, room = copy(self), self.kernel.room
        context = longest_text(self.loaded.folder, room)
        other.room, other.loaded = room, replace(self.loaded, context=context)
        other.name, other.identity = name_of(folder, self.name), f"{self.identity}+{adapter}"
        if self.loaded.writes:
            other.template = ChatTemplate.find(folder, self.tokenizer) or self.template
        other.capabilities = replace(self.capabilities, context=context, chat=other.template is not None)
        return other

    def _write(self, prompts: Sequence[list[int]], how: Sampling, seed: int, on_id: OnId | None) -> list[Written]:
        decode = self.tokenizer.decode
        found = generate(self.kernel, prompts, generation_config(how, seed), decode=decode, on_token=on_id)
        texts = [decode(one.ids) if one.text is None else one.text for one in found]
        return [Written(one.ids, text, STOPPED[one.stopped]) for one, text in zip(found, texts, strict=True)]

    def _log_probabilities(self, pairs: Sequence[IdPair]) -> list[list[float]]:
        if self.loaded.layout == "encoder-decoder":
            return score(self.kernel, [after for _, after in pairs], [before for before, _ in pairs])
        texts = [[*before, *after] for before, after in pairs]
        return score(self.kernel, texts, given=[len(before) for before, _ in pairs])

    def _vectors(self, texts: Sequence[list[int]]) -> NDArray[np.float32]:
        found = embed(self.kernel, texts, self.loaded.pooling, normalise=self.loaded.normalised, batch=EMBEDDING_BATCH)
        vectors: NDArray[np.float32] = found.numpy()
        return vectors


def generation_config(how: Sampling, seed: int) -> GenerationConfig:
    """How the kernel writes what is asked for."""
    sampling = SamplingConfig(temperature=how.temperature, top_p=how.top_p)
    return GenerationConfig(max_new_tokens=how.max_tokens, sampling=sampling, stop=how.stop, seed=seed)
