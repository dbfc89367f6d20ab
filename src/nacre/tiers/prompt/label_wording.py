"""Wordings for an embedding: the texts that stand for a label, and how queries and passages are put before it.

A label stands as the mean of several texts, as in prompt ensembling (Radford et al. 2021, CLIP, section 3.1.4);
training rows can be among them. Each wording is a prompt file whose rendered lines are those texts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nacre.tiers.asking.wording import is_chinese, readable
from nacre.tiers.prompt.file import Head, ModelHints, PromptFile, PromptInput, compose
from nacre.tiers.prompt.instruction import literal, prompt_name
from nacre.tiers.task import Row, Task

# Own wording. Sentences that a text about the label could be, or be called.
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "en": ("a text about {{ label }}", "The writer's concern is {{ label }}.", "This belongs under {{ label }}."),
    "zh": ("关于{{ label }}的文本", "这段话说的是{{ label }}。", "这属于{{ label }}一类。"),
}
_DESCRIPTION = "{% if description %}\n{{ description }}\n{% endif %}"


@dataclass(frozen=True)
class LabelWording:
    """Texts for every label. `examples`: the training rows among them, `per_label` of each where there are as many."""

    name: str
    prompt: PromptFile
    texts: Mapping[str, tuple[str, ...]]
    examples: Mapping[str, tuple[str, ...]]
    per_label: int = 0

    @property
    def length(self) -> int:
        """Characters of all texts."""
        return sum(len(text) for texts in self.texts.values() for text in texts)


@dataclass(frozen=True)
class RankWording:
    """How queries and passages are worded."""

    name: str
    prompt: PromptFile

    @property
    def length(self) -> int:
        """Characters of the template."""
        return len(self.prompt.body)


def label_wordings(task: Task, config_examples: Sequence[int], draws: int, seed: int) -> list[LabelWording]:
    """Every wording with every number of examples, those with the fewest first; the default is the first of all.

    Examples are drawn from the training rows by seed, `draws` times for each number above 0.
    """
    prompts = _label_prompts(task)
    worded = {name: _texts(task, prompt) for name, prompt in prompts.items()}
    found = []
    for k in sorted(set(config_examples)):
        for draw in range(draws if k else 1):
            examples = _drawn(task, k, f"examples {seed} {draw}")
            for name, texts in worded.items():
                joined = {label: (*texts[label], *examples.get(label, ())) for label in task.labels}
                drawn = f" + {k} examples" + (f", draw {draw + 1}" if draws > 1 else "") if k else ""
                found.append(LabelWording(name + drawn, prompts[name], joined, examples, k))
    return found


def rank_wordings(task: Task) -> list[RankWording]:
    """Prefixes of queries and passages: none, the names of the two, the task's instruction before the query."""
    names = ("问题：", "段落：") if is_chinese(task.language) else ("query: ", "passage: ")
    wordings = {"plain": ("", ""), "query named": (names[0], "")}
    if task.about.strip():
        wordings["instruction before the query"] = (f"{' '.join(task.about.split())} ", "")
    wordings["query and passage named"] = names
    return [RankWording(name, _rank_prompt(task, *prefixes)) for name, prefixes in wordings.items()]


def worded_queries(prompt: PromptFile, rows: Sequence[Row]) -> list[Row]:
    """Rows of a `rank` task with the query worded as the prompt says."""
    return [{**row, "query": prompt.render(part="query", text=str(row["query"]))} for row in rows]


def worded_passages(prompt: PromptFile, corpus: Sequence[Row]) -> list[Row]:
    """Passages worded as the prompt says."""
    return [{**row, "text": prompt.render(part="passage", text=str(row["text"]))} for row in corpus]


def _label_prompts(task: Task) -> dict[str, PromptFile]:
    """`default` is what the asking of a label's nearness takes without any search: name and description."""
    templates = "\n".join(_TEMPLATES["zh" if is_chinese(task.language) else "en"])
    bodies = {"default": f"{{{{ label }}}}\n{_DESCRIPTION}"} if any(task.descriptions.values()) else {}
    bodies["name" if bodies else "default"] = "{{ label }}"
    bodies["templates"] = f"{{{{ label }}}}\n{templates}"
    if any(task.descriptions.values()):
        bodies["templates and description"] = f"{{{{ label }}}}\n{templates}\n{_DESCRIPTION}"
    inputs = {"label": PromptInput("the label's name as words")}
    described = inputs | {"description": PromptInput("what the label means", required=False, default="")}
    return {
        name: compose(_head(task), described if "description" in body else inputs, body, "prompt.md")
        for name, body in bodies.items()
    }


def _texts(task: Task, prompt: PromptFile) -> dict[str, tuple[str, ...]]:
    texts = {}
    for label in task.labels:
        given = {"label": " ".join(readable(label).split())}
        if "description" in prompt.inputs:
            given["description"] = " ".join(task.descriptions.get(label, "").split())
        lines = str(prompt.render(**given)).split("\n")
        texts[label] = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    return texts


def _drawn(task: Task, k: int, seed: str) -> dict[str, tuple[str, ...]]:
    """`k` different training texts per label, or as many as it has."""
    if not k:
        return {}
    by_label: dict[str, list[str]] = {}
    for row in task.train:
        by_label.setdefault(row["label"], []).append(str(row["text"]))
    rng = random.Random(seed)
    # Shuffled first and cut then: the draw of three begins with the draw of one, so that texts are shared.
    return {
        label: tuple(rng.sample(texts, len(texts))[:k])
        for label, texts in ((label, list(dict.fromkeys(by_label.get(label, [])))) for label in task.labels)
    }


def _rank_prompt(task: Task, query: str, passage: str) -> PromptFile:
    body = (
        f'{{% if part == "query" %}}\n{literal(query)}{{{{ text }}}}\n'
        f"{{% else %}}\n{literal(passage)}{{{{ text }}}}\n{{% endif %}}"
    )
    inputs = {"part": PromptInput("query or passage"), "text": PromptInput("the query or the passage")}
    return compose(_head(task), inputs, body, "prompt.md")


def _head(task: Task) -> Head:
    return Head(
        name=prompt_name(task.name),
        version=1,
        about=" ".join(task.about.split())[:160] or task.name,
        language=task.language,
        model=ModelHints(engine="embed"),
        tags=(task.kind, "optimised"),
    )
