"""Supervised fine-tuning on conversations: the answers are trained, what they answer is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nacre.data.chat.formats import Conversation, conversation
from nacre.data.chat.messages import BadRow, Message
from nacre.data.chat.template import ChatTemplate, Forgets, Trained, Turned
from nacre.errors import ConfigError
from nacre.train.arrays import Int32s
from nacre.train.objective import LanguageScore, Row, Tallied, check_kernel
from nacre.train.objectives.config import TokenLoss
from nacre.train.objectives.config_align import SftConfig
from nacre.train.objectives.decoder import CausalExample, DecoderObjective, Run
from nacre.train.objectives.seq2seq import EncoderDecoder, Seq2SeqBatch, SourceTarget

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel

TOKENS, TAUGHT = "tokens", "tokens trained"


class Sft(DecoderObjective):
    """Rows are conversations of any format that `nacre.data.chat.formats` reads."""

    def __init__(self, template: ChatTemplate, config: SftConfig | None = None) -> None:
        self.template, self.config = template, config or SftConfig()
        super().__init__(template.tokenizer, self.config.context, self.config.packing, self.config.count_bytes)
        if self.config.trained != "all":
            template.check()

    @property
    def how(self) -> TokenLoss:
        return self.config.loss

    def check(self, kernel: Kernel) -> None:
        check_kernel(kernel, self.tokenizer, "sft", heads=("lm",), layouts=("decoder",), positions=self.context)

    def encode(self, row: Row) -> CausalExample | None:
        talk = _read(self, row)
        if talk is None:
            return None
        runs = [self._run(turned) for turned in self.sequences(talk)]
        return CausalExample(tuple(runs)) if runs else None

    def sequences(self, talk: Conversation) -> Iterator[Turned]:
        """The conversation as it is trained: one sequence, or one for each answer where the template rewrites
        earlier answers; each at most `context` + 1 tokens. What is cut and dropped is counted."""
        try:
            parts = [self._fitted(talk.messages, talk.tools, self.config.trained)]
        except Forgets:
            self.noted["conversations trained one answer at a time, as the template rewrites earlier answers"] += 1
            ends = [index + 1 for index, one in enumerate(talk.messages) if _teaches(one)]
            parts = [self._fitted(talk.messages[:end], talk.tools, "last") for end in ends]
        for turned in parts:
            if turned is not None:
                self.note(TOKENS, len(turned.ids))
                self.note(TAUGHT, int(turned.trained[1:].sum()))
                self.note("tokens that reach over the border of an answer", turned.joined)
                yield turned

    def _fitted(self, messages: Sequence[Message], tools: Any, trained: Trained) -> Turned | None:
        """The sequence at its permitted length, or None where that leaves nothing to train."""
        turned, room = self.template.tokens(messages, tools, trained), self.context + 1
        if len(turned.ids) <= room:
            return turned
        if self.config.too_long == "drop":
            self.dropped["conversations longer than the context"] += 1
            return None
        before = turned
        if self.config.too_long == "turns":
            while len(turned.ids) > room and (shorter := _without_oldest(messages)):
                messages = shorter
                turned = self.template.tokens(messages, tools, trained)
            if turned is not before:
                self.truncated["conversations that lost their oldest turns"] += 1
        if len(turned.ids) > room:
            if not turned.trained[1:room].any():
                self.dropped["prompts that fill the context and leave no room for an answer"] += 1
                return None
            lost = bool(turned.trained[room:].any())
            self.truncated["answers cut at the context, without their end"] += lost
            turned = Turned(turned.ids[:room], turned.trained[:room], turned.joined, turned.spelled[:room])
        self.truncated["tokens"] += len(before.ids) - len(turned.ids)
        return turned

    def _run(self, turned: Turned) -> Run:
        n_bytes = [len(text.encode()) for text in turned.spelled] if self.counts_bytes else None
        return Run(turned.ids, turned.trained, None if n_bytes is None else np.array(n_bytes, dtype=np.int32))


class SftSeq2Seq(EncoderDecoder):
    """Conversations for an encoder-decoder: all before the last answer is its source, the last answer its target.

    Without a template only one question and its answer can be read, the question as it is.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, config: SftConfig | None = None) -> None:
        self.config, self.template = config or SftConfig(), template
        if self.config.trained == "all":
            raise ConfigError(
                "trained: all has no meaning where prompts are read by an encoder", remedy="set trained: last"
            )
        super().__init__(tokenizer, self.config.start_id, self.config.loss)
        if template is not None:
            template.check()

    def check(self, kernel: Kernel) -> None:
        self.check_layout(kernel, "sft", max(self.config.context, self.config.target_context))

    def encode(self, row: Row) -> SourceTarget | None:
        talk = _read(self, row)
        if talk is None:
            return None
        plain = len(talk.messages) == 2 and not talk.tools and not talk.messages[-1].get("tool_calls")
        if self.template is None and not plain:
            self.dropped["conversations of several turns or with tools, which need a template"] += 1
            return None
        source, target = self._plain(talk) if self.template is None else self._rendered(self.template, talk)
        room, target_room = self.config.context, self.config.target_context
        if len(source) > room:
            if self.config.too_long == "drop":
                self.dropped["conversations longer than the context"] += 1
                return None
            # The end of a prompt asks; its beginning goes, as the oldest turns do.
            self.truncated["prompts cut at their beginning"] += 1
            source = source[-room:]
        if len(target) > target_room:
            self.truncated["answers cut at the context, without their end"] += 1
        target = target[:target_room]
        self.note(TOKENS, len(source) + len(target))
        self.note(TAUGHT, len(target))
        n_bytes = len(self.tokenizer.decode(target.tolist()).encode()) if self.config.count_bytes else 0
        return SourceTarget(source, target, n_bytes)

    def collate(self, examples: Sequence[SourceTarget], rng: torch.Generator) -> Seq2SeqBatch:
        del rng
        return self.batch(examples)

    @torch.no_grad()
    def predict(self, kernel: Kernel, batch: Seq2SeqBatch) -> LanguageScore:
        """The score of the answers given their prompts, ends included."""
        nats, _ = self.nll(kernel, batch)
        return LanguageScore(nats, batch.n_trained, batch.n_bytes)

    def _plain(self, talk: Conversation) -> tuple[Int32s, Int32s]:
        texts = [one["content"] for one in talk.messages]
        source, target = (self.tokenizer.encode(text, add_special=False) for text in texts)
        return np.array([*source, self.eos_id], np.int32), np.array([*target, self.eos_id], np.int32)

    def _rendered(self, template: ChatTemplate, talk: Conversation) -> tuple[Int32s, Int32s]:
        turned = template.tokens(talk.messages, talk.tools, "last")
        answer = turned.ids[turned.trained]
        ended = answer if answer[-1] == self.eos_id else np.append(answer, np.int32(self.eos_id))
        self.note("tokens that reach over the border of an answer", turned.joined)
        first = int(turned.trained.argmax())
        return np.append(turned.ids[:first], np.int32(self.eos_id)), ended


def _read(objective: Tallied, row: Row) -> Conversation | None:
    """The row's conversation; None where it is bad, which is counted. DataError where its format is no such."""
    try:
        return conversation(dict(row))
    except BadRow as error:
        objective.dropped[error.message] += 1
        return None


def _teaches(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("trained") is not False


def _without_oldest(messages: Sequence[Message]) -> list[Message] | None:
    """The conversation without its first question and what answers it; None where nothing to train would be left."""
    questions = [index for index, one in enumerate(messages) if one["role"] == "user"]
    if len(questions) < 2:
        return None
    shorter = [*messages[: questions[0]], *messages[questions[1] :]]
    return shorter if any(map(_teaches, shorter)) else None
