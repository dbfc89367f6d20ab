"""The work behind `teach.collect`: asks, judges, scrubs, writes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from nacre.data.chat.formats import conversation
from nacre.data.chat.messages import BadRow, message_of
from nacre.data.read import read
from nacre.data.report import DropReport, Step
from nacre.data.rows import Row
from nacre.data.scrub import answers, scrub
from nacre.data.write import write_json, write_jsonl
from nacre.engine.protocol import Engine, Generation, Message, Prompt, Sampling
from nacre.errors import DataError
from nacre.progress import Scalar
from nacre.recipe.stage import Work
from nacre.tiers.asking.services import generated, tell_terms
from nacre.tiers.relay.teaching import CollectConfig

ASK = "ask"
_PLAIN = ("prompt", "question", "instruction", "query", "source", "text")
# An answer that begins by declining; what a service declines itself is told by `Generation.stopped`.
_DECLINES = re.compile(
    r"^\W*(?:i['’]?m (?:really |very |so )?sorry|i am (?:really |very )?sorry|sorry|i apologi[sz]e|unfortunately)"
    r"[^.!?\n]{0,60}(?:can['’]?t|cannot|can not|unable|not able|won['’]?t)"
    r"|^\W*i (?:can['’]?t|cannot|am unable to|am not able to|won['’]?t) (?:help|assist|provide|answer|do|fulfil)"
    r"|^\W*(?:非常|很)?(?:抱歉|对不起|不好意思)[^。！？\n]{0,40}(?:不能|无法|不会|不便|不可以)"
    r"|^\W*我(?:不能|无法)(?:提供|回答|协助|帮助|满足)",
    re.IGNORECASE,
)
# Introductions by makers whom `scrub_patterns` does not know, and so cannot mask.
_INTRODUCES = re.compile(
    r"\b(?:I am|I['’]m|I was|[Aa]s) (?:an? )?[\w ,-]{0,40}\b(?:language model|AI|assistant|chat ?bot|LLM)\b"
    r"[\w ,-]{0,20}\b(?:developed|trained|created|built|made) by (?!\{\{)\w"
    r"|\bI was (?:developed|trained|created|built|made) by (?!\{\{)(?:the team|a team|engineers|researchers|[A-Z])"
    r"|我(?:是|叫)?(?:一个|一款|一名|一种)?由(?!\{\{)[^，。！？\n]{1,20}?(?:研发|开发|训练|推出|创建|创造|打造|研制)的"
    r"[^。！？\n]{0,20}(?:模型|助手|机器人|人工智能|AI)",
)


@dataclass(frozen=True)
class Asked:
    """A prompt as it is taught, and as the teacher gets it."""

    messages: list[dict[str, str]]
    prompt: Prompt


def collect_answers(config: CollectConfig, work: Work) -> dict[str, Scalar]:
    """Writes `train.jsonl` (and `valid.jsonl`) of conversations, and `report.json` of what was dropped and why."""
    report, metrics, models = DropReport(), dict[str, Scalar](), Counter[str]()
    seen: set[str] = set()
    room = work.engines.within(config.budget)
    with room.open(work.inputs["teacher"], remote=False) as teacher:
        tell_terms(teacher, "teacher", config.terms, work)
        for split in config.splits:
            file = work.inputs["prompts"] / f"{split}.jsonl"
            if not file.is_file():
                continue
            rows = _taught(config, islice(read(file), config.limit), teacher, work, (report, models, seen))
            metrics[f"{split}_rows"] = write_jsonl(work.out / f"{split}.jsonl", rows)
        name = teacher.name
    if not metrics.get("train_rows"):
        raise DataError(
            f"none of the teacher's answers can be taught: {_reasons(report)}",
            remedy="look at a few answers, raise max_tokens, or keep what is dropped (refusals, cut, scrub)",
        )
    spent = room.spent
    work.spent(tokens=spent.tokens)
    write_json(work.out / "report.json", {"task": "teach", "teacher": dict(models), **report.to_dict()})
    dropped = sum(step.rows_dropped for step in report.steps.values())
    return {**metrics, "dropped": dropped, "teacher": name, "requests": spent.requests, "money": round(spent.money, 6)}


def _taught(
    config: CollectConfig,
    rows: Iterator[Row],
    teacher: Engine,
    work: Work,
    books: tuple[DropReport, Counter[str], set[str]],
) -> Iterator[Row]:
    """The rows that are kept, scrubbed."""
    report, models, seen = books
    kept = scrub(_answered(config, rows, teacher, work, (report.step(ASK), models, seen)), config.scrub, report)
    names = _named(config.names)
    for row in kept:
        step, said = report.step("names"), answers(row)[-1]
        step.enter(row)
        found = _INTRODUCES.search(said) if config.scrub.action != "report" else None
        why = "an answer in which the teacher introduces itself"
        if found is None and names is not None:
            found, why = names.search(said), "an answer that names the teacher"
        if found is not None:
            step.drop(why, said[max(0, found.start() - 40) : found.end() + 40])
            continue
        step.leave(row)
        yield row


def _answered(
    config: CollectConfig,
    rows: Iterator[Row],
    teacher: Engine,
    work: Work,
    books: tuple[Step, Counter[str], set[str]],
) -> Iterator[Row]:
    step, models, seen = books
    seed = work.seed if config.temperature else None
    how = Sampling(config.max_tokens, config.temperature, config.top_p, seed=seed)
    asked = _prompts(config, rows, step, seen)
    done = 0
    while part := list(islice(asked, config.batch)):
        for one, answer in zip(part, generated(teacher, [one.prompt for one in part], how), strict=True):
            problem = (
                "an answer that the teacher's service refused to give" if answer is None else _problem(answer, config)
            )
            if problem is not None or answer is None:
                step.drop(problem or "", "" if answer is None else answer.text)
                continue
            models[answer.model] += 1
            row: Row = {"messages": [*one.messages, {"role": "assistant", "content": answer.text.strip()}]}
            step.leave(row)
            yield row
        done += len(part)
        work.progress.update(done, None, asked=done, requests=work.engines.spent.requests)


def _problem(answer: Generation, config: CollectConfig) -> str | None:
    """Why an answer is not taught."""
    if answer.stopped in ("refused", "filtered"):
        return "an answer that the teacher's service refused to give"
    if not answer.text.strip():
        return "an empty answer"
    if answer.stopped == "length" and config.cut == "drop":
        return "an answer cut at max_tokens"
    if config.refusals == "drop" and _DECLINES.search(answer.text):
        return "an answer that declines"
    return None


def _prompts(config: CollectConfig, rows: Iterator[Row], step: Step, seen: set[str]) -> Iterator[Asked]:
    """The prompts of rows, each once over all splits."""
    for row in rows:
        step.enter(row)
        try:
            messages = question_of(row, config.prompt)
        except BadRow as error:
            step.drop(error.message)
            continue
        key = "\n".join(f"{one['role']}: {' '.join(one['content'].split()).casefold()}" for one in messages)
        if key in seen:
            step.drop("a prompt that was asked before", messages[-1]["content"])
            continue
        seen.add(key)
        said = messages
        if config.system and messages[0]["role"] != "system":
            said = [{"role": "system", "content": config.system}, *messages]
        yield Asked(messages, tuple(Message(one["role"], one["content"]) for one in said))  # type: ignore[arg-type]


def question_of(row: Row, field: str | None) -> list[dict[str, str]]:
    """The turns up to the last question. BadRow where there is none, DataError where the row holds no prompt."""
    if field is None and isinstance(row.get("messages"), list):
        turns = [message_of(one) for one in row["messages"]]
    elif field is None and _is_conversation(row):
        turns = conversation(row).messages
    else:
        name = field or next((one for one in _PLAIN if isinstance(row.get(one), str)), None)
        if name is None or not isinstance(row.get(name), str):
            raise DataError(
                f"a row with the fields {', '.join(sorted(row)) or 'none'} holds no prompt",
                remedy="name the field that does: prompt: FIELD",
            )
        turns = [{"role": "user", "content": row[name]}]
    while turns and turns[-1]["role"] != "user":
        turns = turns[:-1]
    if any(one["role"] == "tool" or one.get("tool_calls") for one in turns):
        raise BadRow("a prompt with tools, which an engine is not given here", remedy="leave such rows out")
    if not turns or not turns[-1]["content"].strip():
        raise BadRow("a row without a question", remedy="leave it out")
    return [{"role": one["role"], "content": one["content"]} for one in turns]


def _is_conversation(row: Row) -> bool:
    try:
        conversation(row)
    except DataError:
        return False
    return True


def _named(names: Sequence[str]) -> re.Pattern[str] | None:
    """Any of the names: a whole word where it is spelled with letters of words, anywhere in Chinese."""
    if not names:
        return None
    spelled = [re.escape(name.strip()) for name in names]
    return re.compile("|".join(rf"(?<![A-Za-z0-9]){name}(?![A-Za-z0-9])" for name in spelled), re.IGNORECASE)


def _reasons(report: DropReport) -> str:
    found = {reason: event.count for step in report.steps.values() for reason, event in step.dropped.items()}
    return ", ".join(f"{count:,} times {reason}" for reason, count in found.items()) or "there was no prompt"
