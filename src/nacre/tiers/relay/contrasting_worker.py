"""The work behind `teach.contrast`: a model's own answers beside demonstrations.

A classifier between demonstrations and the samples of a policy is a reward whose optimum is the demonstrators' policy
(Ho and Ermon 2016, "Generative adversarial imitation learning"); learnt in pairs it is Bradley-Terry's. With the same
pairs DPO against the sampling model is SPIN (Chen et al. 2024, "Self-play fine-tuning").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from nacre.data.chat.formats import conversation
from nacre.data.chat.messages import BadRow
from nacre.data.read import read
from nacre.data.rows import Row
from nacre.data.write import write_json, write_jsonl
from nacre.engine.protocol import Engine, Message, Sampling
from nacre.errors import DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.asking.services import generated
from nacre.tiers.relay.teaching import ContrastConfig
from nacre.tiers.relay.teaching_worker import question_of


def contrast_answers(config: ContrastConfig, work: Work) -> dict[str, Scalar]:
    """Writes pairs of every split, and `report.json`."""
    dropped: Counter[str] = Counter()
    metrics: dict[str, Scalar] = {}
    with work.engines.open(work.inputs["model"], remote=False) as model:
        for split in config.splits:
            file = work.inputs["demonstrations"] / f"{split}.jsonl"
            if file.is_file():
                rows = _pairs(config, islice(read(file), config.limit), model, work, dropped)
                metrics[f"{split}_rows"] = write_jsonl(work.out / f"{split}.jsonl", rows)
    write_json(work.out / "report.json", {"task": "contrast", "dropped": dict(dropped)})
    if not metrics.get("train_rows"):
        reasons = ", ".join(f"{count:,} times {reason}" for reason, count in dropped.items())
        raise DataError(
            f"no demonstration has an answer of the model to stand against ({reasons or 'there was none'})",
            remedy="give conversations, and a model that answers otherwise than they do",
        )
    return {**metrics, "dropped": sum(dropped.values())}


def _pairs(
    config: ContrastConfig, rows: Iterator[Row], model: Engine, work: Work, dropped: Counter[str]
) -> Iterator[Row]:
    asked, done = _asked(rows, dropped), 0
    while part := list(islice(asked, config.batch)):
        prompts = [tuple(Message(one["role"], one["content"]) for one in turns) for turns, _ in part]  # type: ignore[arg-type]
        for draw in range(config.samples):
            seed = work.seed * 1_000_003 + draw if config.temperature else None
            how = Sampling(config.max_tokens, config.temperature, seed=seed)
            for (turns, shown), answer in zip(part, generated(model, prompts, how), strict=True):
                said = "" if answer is None else answer.text.strip()
                if not said or said == shown:
                    dropped["an empty answer" if not said else "an answer equal to the demonstration"] += 1
                    continue
                yield {"messages": turns, "chosen": shown, "rejected": said}
        done += len(part)
        work.progress.update(done, None, asked=done)


def _asked(rows: Iterator[Row], dropped: Counter[str]) -> Iterator[tuple[list[dict[str, str]], str]]:
    """Prompts with what demonstrators answered."""
    for row in rows:
        try:
            turns = conversation(row).messages
            prompt = question_of({"messages": turns}, None)
        except BadRow as error:
            dropped[error.message] += 1
            continue
        if len(prompt) + 1 != len(turns) or not turns[-1]["content"].strip():
            dropped["a demonstration that does not end with one answer in words"] += 1
            continue
        yield prompt, turns[-1]["content"].strip()
