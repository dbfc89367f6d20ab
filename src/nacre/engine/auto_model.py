"""A checkpoint that our kernel cannot express, run by `transformers`. Behaves as `native` does. Imports torch.

Nothing is fetched, and no code from a checkpoint is run (`trust_remote_code` is never set).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nacre.data.tokenizer import Tokenizer
from nacre.engine.local import (
    EMBEDDING_BATCH,
    IdPair,
    Layout,
    Loaded,
    LocalEngine,
    OnId,
    Written,
    longest_text,
    pooling_of,
)
from nacre.engine.protocol import Sampling, Stopped
from nacre.errors import CheckpointError, DataError
from nacre.kernel.heads import pool
from nacre.lazy import require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from nacre.engine.room import EngineRoom

_HERE = {"local_files_only": True, "trust_remote_code": False}
_WRITERS = ("ForCausalLM", "LMHeadModel")


def open_auto_model(folder: Path, room: EngineRoom) -> AutoModelEngine:
    """The model of `transformers` in a folder; raises CheckpointError where it knows none, or would run its code."""
    return AutoModelEngine(folder, room.device)


class AutoModelEngine(LocalEngine):
    """A model of `transformers` as an engine."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        hf = require("transformers")
        config = _loaded(folder, lambda: hf.AutoConfig.from_pretrained(folder, **_HERE))
        writes = any(str(name).endswith(_WRITERS) for name in config.architectures or ())
        layout: Layout = "encoder-decoder" if config.is_encoder_decoder else "decoder" if writes else "encoder"
        kinds = {"encoder-decoder": hf.AutoModelForSeq2SeqLM, "decoder": hf.AutoModelForCausalLM}
        kind = kinds.get(layout, hf.AutoModel)
        self.model: Any = _loaded(folder, lambda: kind.from_pretrained(folder, config=config, **_HERE))
        self.model.to(device).eval()
        pooling, normalised = pooling_of(folder)
        positions = getattr(config, "max_position_embeddings", None)
        super().__init__(
            "transformers",
            Loaded(
                folder,
                _title(config),
                _tokenizer(folder, hf),
                layout,
                layout != "encoder",
                longest_text(folder, positions if isinstance(positions, int) else None),
                config.hidden_size,
                pooling,
                normalised,
            ),
        )

    def _write(self, prompts: Sequence[list[int]], how: Sampling, seed: int, on_id: OnId | None) -> list[Written]:
        limit = self.loaded.context if self.loaded.layout == "decoder" else None
        for number, ids in enumerate(prompts, 1):
            if not ids or (limit is not None and len(ids) >= limit):
                raise DataError(
                    f"prompt {number} has {len(ids)} tokens; the model has {limit} positions for prompt and answer",
                    remedy="shorten the prompt",
                )
        room = how.max_tokens if limit is None else min(how.max_tokens, limit - max(map(len, prompts)))
        watch = _Watch(len(prompts), self.tokenizer, how.stop, self._ends(), on_id)
        inputs, mask = self._padded(prompts, left=self.loaded.layout == "decoder")
        drawn = {"temperature": how.temperature, "top_p": how.top_p or 1.0, "top_k": 0} if how.temperature else {}
        config = require("transformers").GenerationConfig(
            max_new_tokens=room,
            do_sample=how.temperature > 0,
            pad_token_id=self.tokenizer.pad_id or 0,
            eos_token_id=sorted(watch.ends) or None,
            bos_token_id=self.tokenizer.bos_id,
            decoder_start_token_id=getattr(self.model.config, "decoder_start_token_id", None),
            **drawn,
        )
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(seed)
            self.model.generate(inputs, attention_mask=mask, generation_config=config, stopping_criteria=[watch])
        return watch.written()

    def _ends(self) -> frozenset[int]:
        ends = getattr(self.model.generation_config, "eos_token_id", None)
        ends = self.model.config.eos_token_id if ends is None else ends
        return frozenset(ends if isinstance(ends, list | tuple) else [] if ends is None else [ends])

    def _alone(self, ids: list[int], how: Sampling) -> bool:
        limit = self.loaded.context if self.loaded.layout == "decoder" else None
        return super()._alone(ids, how) or (limit is not None and len(ids) + how.max_tokens > limit)

    def _log_probabilities(self, pairs: Sequence[IdPair]) -> list[list[float]]:
        return [self._scored(before, after) for before, after in pairs]

    def _scored(self, before: list[int], after: list[int]) -> list[float]:
        with torch.inference_mode():
            if self.loaded.layout == "encoder-decoder":
                start = self.model.config.decoder_start_token_id or 0
                logits = self.model(
                    self._tensor([before]), decoder_input_ids=self._tensor([[start, *after[:-1]]])
                ).logits
            else:
                logits = self.model(self._tensor([[*before, *after[:-1]]])).logits[:, len(before) - 1 :]
            found = logits[0].float().log_softmax(-1).gather(-1, self._tensor([after])[0].unsqueeze(-1))
        values: list[float] = found.squeeze(-1).tolist()
        return values

    def _vectors(self, texts: Sequence[list[int]]) -> NDArray[np.float32]:
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        out = torch.empty(len(texts), self.loaded.dimensions)
        body = self.model.base_model
        with torch.inference_mode():
            for start in range(0, len(order), EMBEDDING_BATCH):
                rows = order[start : start + EMBEDDING_BATCH]
                ids, mask = self._padded([texts[row] for row in rows], left=False)
                hidden = body(input_ids=ids, attention_mask=mask).last_hidden_state
                out[rows] = pool(hidden, mask.bool(), self.loaded.pooling).float().cpu()
        vectors: NDArray[np.float32] = (torch.nn.functional.normalize(out) if self.loaded.normalised else out).numpy()
        return vectors

    def _padded(self, texts: Sequence[list[int]], *, left: bool) -> tuple[Tensor, Tensor]:
        """Ids (B, T) and mask (B, T), 1 where real."""
        width, pad = max(map(len, texts)), self.tokenizer.pad_id or 0
        ids = [[*[pad] * (width - len(one)), *one] if left else [*one, *[pad] * (width - len(one))] for one in texts]
        real = [[1] * len(one) for one in texts]
        mask = [[*[0] * (width - len(o)), *o] if left else [*o, *[0] * (width - len(o))] for o in real]
        return self._tensor(ids), self._tensor(mask)

    def _tensor(self, rows: list[list[int]]) -> Tensor:
        return torch.tensor(rows, device=self.model.device)


class _Watch:
    """Follows a batch as it is written: hands ids on, and ends a text at its end token or at a stop string."""

    def __init__(
        self, rows: int, tokenizer: Tokenizer, stop: Sequence[str], ends: frozenset[int], on_id: OnId | None
    ) -> None:
        self.tokenizer, self.stop, self.ends, self.on_id = tokenizer, stop, ends, on_id
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        self.stopped: list[Stopped | None] = [None] * rows

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which texts are done, (B,) bool, after one more token of each."""
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.stopped[row] is not None:
                continue
            if token in self.ends:
                self.stopped[row] = "end"
                continue
            self.ids[row].append(token)
            if self.stop and any(one in self.tokenizer.decode(self.ids[row]) for one in self.stop):
                self.stopped[row] = "stop"
            elif self.on_id is not None:
                self.on_id(row, token)
        return torch.tensor([one is not None for one in self.stopped], device=input_ids.device)

    def written(self) -> list[Written]:
        """The answers, cut at their stop strings."""
        out = []
        for ids, stopped in zip(self.ids, self.stopped, strict=True):
            text = self.tokenizer.decode(ids)
            if stopped == "stop":
                text = text[: min(place for one in self.stop if (place := text.find(one)) >= 0)]
            out.append(Written(ids, text, stopped or "length"))
        return out


def _title(config: Any) -> str:
    layers = getattr(config, "num_hidden_layers", None)
    return f"{config.model_type} {layers} x {config.hidden_size}" if layers else str(config.model_type)


def _loaded(folder: Path, load: Any) -> Any:
    try:
        return load()
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} cannot be opened by transformers either: {str(error)[:300]}",
            remedy="serve the model with what it was made for, and give its address: http://HOST/v1#MODEL",
        ) from error


def _tokenizer(folder: Path, hf: Any) -> Tokenizer:
    """Ours where the files are of a format that it reads, else what `transformers` makes of them."""
    try:
        return Tokenizer.load(folder)
    except CheckpointError as refused:
        theirs = _loaded(folder, lambda: hf.AutoTokenizer.from_pretrained(folder, **_HERE))
        raw = getattr(theirs, "backend_tokenizer", None)
        if raw is None:
            raise refused
        names = {key.removesuffix("_token"): value for key, value in theirs.special_tokens_map.items()}
        roles = {role: str(token) for role, token in names.items() if isinstance(token, str)}
        return Tokenizer(raw, roles, {"chat_template": theirs.chat_template})
