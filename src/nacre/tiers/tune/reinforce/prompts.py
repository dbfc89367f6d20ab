"""What is answered: rows of a dataset as prompts of ids, with what their rewards need to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nacre.data.chat.formats import conversation
from nacre.data.chat.messages import BadRow, Message, check_prompt, message_of, tools_of
from nacre.data.chat.template import ChatTemplate
from nacre.data.tokenizer import Tokenizer
from nacre.errors import ConfigError, DataError
from nacre.kernel.config import KernelConfig


@dataclass(frozen=True)
class Prompt:
    """`ids` as the kernel reads them; `row` is where `expected`, `tests` and the like stand."""

    ids: tuple[int, ...]
    messages: tuple[Message, ...]
    row: Mapping[str, Any]


class PromptReader:
    """Reads rows as prompts. What is dropped is counted in `dropped`, by reason.

    A row holds `messages`, or `source` (one turn of the user), or is a conversation in any format that
    `nacre.data.chat.formats` reads. One that ends with an answer is the prompt before it, and the answer is `expected`
    unless the row says otherwise.
    """

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate | None, config: KernelConfig, longest: int) -> None:
        self.tokenizer, self.template, self.config, self.longest = tokenizer, template, config, longest
        self.dropped: Counter[str] = Counter()

    def read(self, rows: Iterable[Mapping[str, Any]], needs: Mapping[str, str], source: str) -> list[Prompt]:
        """The prompts of `rows`. `needs`: field -> the reward that needs it; DataError names the row that lacks one."""
        found, number = [], 0
        for number, row in enumerate(rows, 1):
            prompt = self._prompt(row, number, source)
            if prompt is None:
                continue
            for name, reward in needs.items():
                if prompt.row.get(name) in (None, "", []):
                    raise DataError(
                        f"{source}, row {number}: the reward {reward} needs the field {name!r}, which is missing",
                        remedy=f"give every prompt {name!r}, or leave the reward {reward} out",
                    )
            found.append(prompt)
        if not found:
            why = ", ".join(f"{n:,} {reason}" for reason, n in self.dropped.most_common()) or "it is empty"
            raise DataError(
                f"{source}: none of {number:,} rows can be used as a prompt ({why})",
                remedy='give rows such as {"messages": [...], "expected": ...}',
            )
        return found

    def _prompt(self, row: Mapping[str, Any], number: int, source: str) -> Prompt | None:
        try:
            messages, expected = _asked(row)
            check_prompt(messages)
            ids = self._ids(messages, tools_of(row.get("tools")))
        except BadRow as error:
            self.dropped[error.message] += 1
            return None
        except (DataError, ConfigError) as error:
            raise type(error)(f"{source}, row {number}: {error.message}", remedy=error.remedy) from error
        if len(ids) > self.longest:
            self.dropped[f"prompts longer than {self.longest} tokens"] += 1
            return None
        known = dict(row) if expected is None else {"expected": expected} | dict(row)
        return Prompt(tuple(ids), tuple(messages), known)

    def _ids(self, messages: Sequence[Message], tools: Any) -> list[int]:
        both, eos = self.config.layout == "encoder-decoder", self.tokenizer.eos_id
        end = [eos] if both and eos is not None else []
        if self.template is not None:
            return [*self.template.prompt(messages, tools), *end]
        if len(messages) != 1 or tools:
            raise ConfigError(
                "a conversation of several turns, or with tools, and the model has no chat template",
                remedy="name one: template: chatml, say",
            )
        begin = [] if both or self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        return [*begin, *self.tokenizer.encode(messages[0]["content"], add_special=False), *end]


def _asked(row: Mapping[str, Any]) -> tuple[list[Message], str | None]:
    """The turns before the answer, and the answer where the row has it."""
    if isinstance(row.get("messages"), list):
        messages = [message_of(one) for one in row["messages"]]
    elif isinstance(row.get("source"), str) and "target" not in row:
        messages = [{"role": "user", "content": row["source"]}]
    else:
        messages = conversation(dict(row)).messages
    if messages and messages[-1]["role"] == "assistant":
        return messages[:-1], str(messages[-1]["content"])
    return messages, None
