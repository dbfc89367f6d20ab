"""A conversation with a model that has a chat template: it hears what was said before. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nacre.data.chat.template import ChatTemplate
from nacre.errors import DataError
from nacre.kernel.generate import GenerationConfig, generate
from nacre.lifecycle.evaluate.predict import Model


class Talk:
    """The turns so far. `forgotten` counts turns that no longer fit into the model's context."""

    def __init__(self, model: Model, template: ChatTemplate, how: GenerationConfig, system: str | None = None) -> None:
        self.model, self.template, self.how = model, template, how
        self.turns: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
        self.forgotten = 0

    @classmethod
    def open(cls, folder: Path, model: Model, how: GenerationConfig, system: str | None = None) -> Talk | None:
        """A conversation with the model of the folder; None where it writes no answers or has no template."""
        if model.kernel.config.head != "lm" or model.tokenizer is None:
            return None
        template = ChatTemplate.find(folder, model.tokenizer)
        return None if template is None else cls(model, template, how, system)

    def say(self, text: str) -> str:
        """The answer to `text`. DataError where `text` alone leaves no room for one."""
        before = list(self.turns), self.forgotten
        self.turns.append({"role": "user", "content": text})
        ids = self._prompt()
        while self._is_long(ids) and self._forget():
            ids = self._prompt()
        try:
            (said,) = generate(self.model.kernel, [ids], self.how, decode=self.model.words.decode)
        except DataError:
            self.turns, self.forgotten = before
            raise
        answer = said.text if said.text is not None else self.model.words.decode(said.ids)
        self.turns.append({"role": "assistant", "content": answer})
        return answer.strip()

    def _prompt(self) -> list[int]:
        ids, eos = self.template.prompt(self.turns), self.model.words.eos_id
        both = self.model.kernel.config.layout == "encoder-decoder"
        return [*ids, eos] if both and eos is not None else ids

    def _is_long(self, ids: list[int]) -> bool:
        config = self.model.kernel.config
        bounded = config.position in ("learned", "rotary")
        return bounded and len(ids) + self.how.max_new_tokens > config.max_positions

    def _forget(self) -> bool:
        """Leaves out the oldest question and its answer; False where only the last question is left."""
        first = 1 if self.turns[0]["role"] == "system" else 0
        if len(self.turns) - first < 3:
            return False
        del self.turns[first : first + 2]
        self.forgotten += 2
        return True
