"""Batches that the student writes itself, to the prompts of a batch of rows (GKD, Agarwal et al. 2024, algorithm 1).

All draws come from one seed, drawn from torch's generator, which the loop seeds with (seed, step, part): a run that is
resumed writes the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nacre.kernel.generate import generate
from nacre.kernel.running import Generated, GenerationConfig
from nacre.kernel.sampling import SamplingConfig
from nacre.train.arrays import Int64s
from nacre.train.objective import IGNORE, Batch
from nacre.train.objectives.config_align import OnPolicy
from nacre.train.objectives.decoder import CausalBatch, CausalExample, DecoderObjective, Run
from nacre.train.objectives.seq2seq import EncoderDecoder, Seq2SeqBatch, SourceTarget

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


def can_write(objective: Any) -> bool:
    """Whether batches of this objective have prompts that a kernel can answer."""
    return isinstance(objective, DecoderObjective | EncoderDecoder)


def written(objective: Any, kernel: Kernel, batch: Any, policy: OnPolicy) -> Batch | None:
    """The prompts of `batch` with answers by `kernel`, which are the trained part; None where no prompt leaves room."""
    seed = int(torch.randint(2**31, ()))
    device = next(kernel.parameters()).device
    how = GenerationConfig(policy.max_new_tokens, SamplingConfig(temperature=policy.temperature), seed=seed)
    made = _continued if isinstance(batch, CausalBatch) else _answered
    own = made(objective, kernel, batch, how)
    return None if own is None else own.to(device)


def _continued(objective: DecoderObjective, kernel: Kernel, batch: CausalBatch, how: GenerationConfig) -> Batch | None:
    room = objective.context if kernel.room is None else min(objective.context, kernel.room)
    asked = [prompt for prompt in prompts_of(batch) if len(prompt) < room]
    if not asked:
        return None
    examples = []
    for prompt, answer in zip(asked, generate(kernel, asked, how), strict=True):
        tokens = np.array([*prompt, *_ended(answer)], np.int32)[: room + 1]
        trained = np.arange(len(tokens)) >= len(prompt)
        n_bytes = np.zeros(len(tokens), np.int32) if objective.counts_bytes else None
        examples.append(CausalExample((Run(tokens, trained, n_bytes),)))
    return objective.collate(examples, torch.Generator())


def _answered(objective: EncoderDecoder, kernel: Kernel, batch: Seq2SeqBatch, how: GenerationConfig) -> Batch | None:
    asked = [ids[mask].tolist() for ids, mask in zip(batch.ids, batch.mask, strict=True)]
    answers = generate(kernel, asked, how)
    pairs = zip(asked, answers, strict=True)
    examples = [SourceTarget(np.array(source, np.int32), np.array(_ended(one), np.int32)) for source, one in pairs]
    return objective.batch(examples)


def _ended(answer: Generated) -> list[int]:
    """An answer with the token that ended it."""
    return answer.ids if answer.end is None else [*answer.ids, answer.end]


def prompts_of(batch: CausalBatch) -> list[list[int]]:
    """What stands before the last trained stretch of each text of the batch; texts without one have no prompt."""
    ids, targets = batch.ids.cpu().numpy(), batch.targets.cpu().numpy()
    segments = np.ones_like(ids) if batch.segments is None else batch.segments.cpu().numpy()
    prompts = []
    for row in range(len(ids)):
        for number in np.unique(segments[row][segments[row] > 0]):
            inside = np.flatnonzero(segments[row] == number)
            start = _last_stretch(targets[row][inside])
            if start is not None:
                prompts.append(ids[row][inside][: start + 1].tolist())
    return prompts


def _last_stretch(targets: Int64s) -> int | None:
    """Where the last run of trained targets begins."""
    trained = targets != IGNORE
    begins = np.flatnonzero(trained & ~np.concatenate([[False], trained[:-1]]))
    return int(begins[-1]) if len(begins) else None
