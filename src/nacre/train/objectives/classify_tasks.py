"""Classes of several tasks under one head, each competing with those of its own task alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nacre.errors import ConfigError
from nacre.train.objective import Outputs
from nacre.train.objectives.classify import Classify
from nacre.train.objectives.config import ClassifyConfig

if TYPE_CHECKING:
    from nacre.data.tokenizer import Tokenizer
    from nacre.kernel.model import Kernel


class ClassifyTasks(Classify):
    """`Classify` whose softmax runs over the classes of the row's own task: a head per task. Each class belongs to the
    task that had it first. `tasks` are the labels of each; together they are the labels of the head, in order."""

    def __init__(
        self, tokenizer: Tokenizer, tasks: Sequence[Sequence[str]], config: ClassifyConfig | None = None
    ) -> None:
        super().__init__(tokenizer, [label for labels in tasks for label in labels], config)
        if self.config.loss.label_smoothing:
            raise ConfigError("label smoothing would reach classes of other tasks", remedy="label_smoothing: 0")
        self.task_of = torch.tensor([number for number, labels in enumerate(tasks) for _ in labels])

    def outputs(self, kernel: Kernel, batch: Any) -> Outputs:
        """Logits (B, C), -inf where a class is of another task than the row."""
        logits: Tensor = self.logits(kernel, batch)
        task_of = self.task_of.to(logits.device)
        other = task_of[None, :] != task_of[batch.labels][:, None]
        return Outputs(logits.masked_fill(other, float("-inf")), batch.labels)
