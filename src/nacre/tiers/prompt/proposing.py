"""Instructions that the engine itself proposes, from training rows that the present instruction got wrong.

A language model as the writer of instructions: Zhou et al. 2023 (APE), section 3; shown what went wrong, as in the
reflective mutation of Agrawal et al. 2025 (GEPA), section 3, and Yang et al. 2024 (OPRO). One round is made here: more
rounds cost more than small validation sets can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nacre.engine.protocol import Engine, EngineError, Prompt, Sampling
from nacre.tiers.asking.asking import ask
from nacre.tiers.asking.parsing import bare, json_in
from nacre.tiers.asking.wording import answered, as_text, asked, default_instruction, frame_of, is_chinese
from nacre.tiers.prompt.library import Library
from nacre.tiers.rung import Answer
from nacre.tiers.task import Row, Task

CASES = 4  # that one proposal is made from
_LONGEST = 2000  # characters of an instruction: a longer one is refused


@dataclass(frozen=True)
class Proposed:
    """What the engine proposed. `problems` says why answers were not taken; `misjudged` of `n_rows` rows were wrong."""

    instructions: tuple[str, ...]
    diagnoses: tuple[str, ...]
    problems: tuple[str, ...]
    answers: tuple[Answer, ...]
    misjudged: int
    n_rows: int


def propose(engine: Engine, task: Task, rows: Sequence[Row], n: int, how: Sampling) -> Proposed:
    """Asks `rows` by the default prompt, then for up to `n` instructions, each from other misjudged rows.

    It costs one request per row and one per proposal; no row is misjudged: no proposal.
    """
    answers = ask(engine, task, rows, how=how)
    wrong = misjudged(task, rows, answers)
    groups = [wrong[start::n] for start in range(n)] if n else []
    groups = [group[:CASES] for group in groups if group]
    prompts = [_prompt(engine, task, [(rows[index], answers[index]) for index in group]) for group in groups]
    hints = Library().get(_meta_name(task)).head.model
    texts, diagnoses, problems = list[str](), list[str](), list[str]()
    for prompt in prompts:
        found = _written(engine, prompt, hints.sampling())
        if isinstance(found, str):
            problems.append(found)
        else:
            diagnoses.append(found[0])
            texts.append(found[1])
    return Proposed(tuple(texts), tuple(diagnoses), tuple(problems), tuple(answers), len(wrong), len(rows))


def misjudged(task: Task, rows: Sequence[Row], answers: Sequence[Answer]) -> list[int]:
    """Rows whose answer is not perfect by the task's metric, the worst first."""
    scores = [task.quality.judge([row], [one.value]).score for row, one in zip(rows, answers, strict=True)]
    return sorted((index for index, score in enumerate(scores) if not score >= 1), key=lambda one: (scores[one], one))


def _prompt(engine: Engine, task: Task, cases: Sequence[tuple[Row, Answer]]) -> Prompt:
    unanswered = "（没有可用的答案）" if is_chinese(task.language) else "(no usable answer)"
    shown = [
        {"asked": asked(task, row), "wanted": answered(task, row), "given": one.raw or unanswered} for row, one in cases
    ]
    prompt = Library().get(_meta_name(task))
    turns = prompt.render(instruction=default_instruction(task).text, frame=frame_of(task), cases=shown)
    if isinstance(turns, str) or engine.capabilities.chat:
        return turns
    return as_text(task, turns)


def _written(engine: Engine, prompt: Prompt, how: Sampling) -> tuple[str, str] | str:
    """Diagnosis and instruction that the engine writes; or why there is none."""
    try:
        return _read(engine.generate([prompt], how)[0].text)
    except EngineError as error:
        if not error.blames_the_request:
            raise
        return f"refused: {error.message}"


def _read(text: str) -> tuple[str, str] | str:
    """Diagnosis and instruction; or why the answer is not taken."""
    value = json_in(bare(text))
    if not isinstance(value, dict) or not isinstance(value.get("instruction"), str):
        return "not the JSON that was asked for"
    instruction = value["instruction"].strip()
    if not instruction:
        return "an empty instruction"
    if len(instruction) > _LONGEST:
        return f"an instruction of {len(instruction):,} characters, more than {_LONGEST:,}"
    return str(value.get("diagnosis", "")), instruction


def _meta_name(task: Task) -> str:
    return "improve-zh" if is_chinese(task.language) else "improve-en"
