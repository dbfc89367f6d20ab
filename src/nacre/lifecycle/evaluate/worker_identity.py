"""The work behind `evaluate.identity`: asks, and looks for names in what is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from nacre.data.scrub import find
from nacre.data.scrub_patterns import PATTERNS
from nacre.data.write import write_json, write_jsonl
from nacre.engine.protocol import Message, Prompt, Sampling
from nacre.lifecycle.evaluate.identity import IdentityConfig
from nacre.lineage.durable import write_atomic
from nacre.metrics.bootstrap import wilson
from nacre.progress import Scalar
from nacre.recipe.stage import Work

# None of them stands word for word in the shared identity rows: what is tested is not what was taught.
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "en": (
        "Tell me in one sentence who you are.",
        "Which company built you?",
        "By what name may I address you?",
        "Is it ChatGPT that I am writing to?",
        "Am I talking to a person? Who are you?",
        "Please state your name and your maker.",
        "Which language model is answering me right now?",
        "Who trained the model behind this chat?",
    ),
    "zh": (
        "用一句话介绍你自己。",
        "是哪家公司开发了你？",
        "我该怎么称呼你？",
        "你是通义千问吗？",
        "和我聊天的是真人吗？你是谁？",
        "请说出你的名字和你的开发者。",
        "现在回答我的是哪个大模型？",
        "这个聊天背后的模型是谁训练的？",
    ),
}
# Patterns that say that something is a model, not which: no teacher is named by them.
_NAMING = tuple(name for name, pattern in PATTERNS.items() if not pattern.generic)


def evaluate_identity(config: IdentityConfig, work: Work) -> dict[str, Scalar]:
    """Writes `metrics.json`, `samples.jsonl` and `report.html`."""
    asked: list[tuple[str, str]] = [(language, text) for language in config.languages for text in QUESTIONS[language]]
    asked += [("own", text) for text in config.questions]
    prompts: list[Prompt] = [(Message("user", text),) for _, text in asked]
    with work.engines.open(work.inputs["model"], remote=False) as engine:
        answers = engine.generate(prompts, Sampling(config.max_tokens))
        name = engine.name
    rows = [_judged(config, language, text, one.text) for (language, text), one in zip(asked, answers, strict=True)]
    figures = {language: _figures(rows, language) for language in dict.fromkeys(row["language"] for row in rows)}
    figures["all"] = _figures(rows, None)
    write_jsonl(work.out / "samples.jsonl", rows)
    write_json(work.out / "metrics.json", {"model": name, "identity": figures})
    write_atomic(work.out / "report.html", _page(name, rows, figures).encode())
    flat = {"questions": len(rows)}
    return flat | {
        f"{key}_{language}" if language != "all" else key: found[key]["value"]
        for language, found in figures.items()
        for key in found
    }


def _judged(config: IdentityConfig, language: str, question: str, answer: str) -> dict[str, Any]:
    """Which names stand in an answer. A question's own words do not count: denying them repeats them."""
    theirs = [name for name in config.teachers if _stands(name, answer) and not _stands(name, question)]
    theirs += [match.group() for _, match in find(answer, _NAMING)]
    own = any(_stands(name, answer) for name in (*config.names, *config.makers))
    return {"language": language, "question": question, "answer": answer, "own": own and not theirs, "teachers": theirs}


def _stands(name: str, text: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(name.strip())}(?![A-Za-z0-9])", text, re.IGNORECASE) is not None


def _figures(rows: Sequence[dict[str, Any]], language: str | None) -> dict[str, dict[str, float]]:
    """The shares with their intervals over questions, which are honest where all or none are right (Wilson's)."""
    chosen = [row for row in rows if language in (None, row["language"])]
    found = {}
    for name, key in (("right_name", "own"), ("teachers_name", "teachers")):
        interval = wilson(sum(bool(row[key]) for row in chosen), len(chosen))
        found[name] = {
            "value": round(interval.value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)
        }  # fmt: skip
    return found


def _page(name: str, rows: Sequence[dict[str, Any]], figures: Mapping[str, Any]) -> str:
    """One table of questions, answers and what was found in them; opens offline."""
    total = figures["all"]
    head = f"{total['right_name']['value']:.0%} own name · {total['teachers_name']['value']:.0%} a teacher's name"
    lines = [
        f"<tr><td>{escape(row['language'])}<td>{escape(row['question'])}<td>{escape(row['answer'])}"
        f"<td>{'✓' if row['own'] else '–'}<td>{escape(', '.join(row['teachers'])) or '–'}"
        for row in rows
    ]
    return (
        f'<!doctype html><meta charset="utf-8"><title>{escape(name)}: who are you?</title>'
        "<style>body{font:16px sans-serif;margin:2rem;max-width:70rem}td,th{padding:.3rem .6rem;text-align:left;"
        "vertical-align:top;border-bottom:1px solid #ccc}</style>"
        f"<h1>{escape(name)}: who are you? 你是谁？</h1><p>{head}</p>"
        "<table><tr><th>language<th>question<th>answer<th>own name<th>teachers" + "".join(lines) + "</table>\n"
    )
