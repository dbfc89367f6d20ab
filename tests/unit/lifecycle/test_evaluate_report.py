"""The report is one file: nothing to fetch, the same bytes twice, valid markup, both languages complete."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from nacre.errors import ConfigError
from nacre.lifecycle.evaluate.content import (
    Anatomy,
    Ancestor,
    ClassRow,
    Comparison,
    Figure,
    Mistake,
    Part,
    Report,
    Run,
    Sample,
    Table,
)
from nacre.lifecycle.evaluate.report import SECTIONS, render
from nacre.lifecycle.evaluate.words import WORDS, Words
from nacre.metrics import classification as metrics
from nacre.metrics.bootstrap import interval, paired

VOID = {"meta", "link", "br", "hr", "img", "input"}


class Checker(HTMLParser):
    """Every element closed in order, every id given once, every local link met."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.targets: set[str] = set()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._attributes(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._attributes(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def _attributes(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("href", "aria-labelledby"):
                self.targets.add((value or "").lstrip("#"))


def full(language: str = "en", n_classes: int = 5) -> Report:
    rng = np.random.default_rng(0)
    labels = [("退款" if language == "zh" else "refund & <return>") + str(i) for i in range(n_classes)]
    true = rng.integers(0, n_classes, 200)
    logits = rng.normal(size=(200, n_classes))
    logits[np.arange(200), true] += 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = scores.argmax(axis=1)
    rows = metrics.class_rows(true, predicted, n_classes)
    base = metrics.class_rows(true, np.zeros(200, dtype=int), n_classes)
    curve = metrics.one_vs_rest(true, scores)
    steps = [{"step": step, "loss": 2.0 / step, "lr": 1e-3, "time": 1.5} for step in range(1, 1000)]
    event = {"count": 2, "samples": [{"where": "a.jsonl:3", "text": "短"}]}
    clean = {"step": "clean", "rows_in": 10, "rows_out": 8, "dropped": {"too short": event}}
    return Report(
        title="desk/tune@1 <test>",
        verdict='Right & "quick"',
        language=language,  # type: ignore[arg-type]
        figures=[Figure("accuracy", interval(rows, metrics.accuracy_of_sums)), Figure("perplexity", 12.5, "number")],
        notes=["three texts were cut"],
        comparison=Comparison("TF-IDF", "accuracy", 0.2, paired(base, rows, metrics.accuracy_of_sums)),
        tables=[Table("comparison", ["<one>", "accuracy"], [["mean", "0.91"]], "Two & more.")],
        runs=[Run("tune", [*steps, {"event": "note"}])],
        rocs={"micro_roc": curve.micro},
        labels=labels,
        confusion=metrics.confusion_matrix(true, predicted, n_classes),
        classes=[ClassRow(label, 0.5, 0.25, 1 / 3, 7) for label in labels],
        calibration=metrics.calibration(scores.max(axis=1), predicted == true),
        mistakes=[Mistake("为什么 <b>还没</b> 发货", labels[0], labels[1], 0.91), Mistake("x", labels[1], labels[0])],
        samples=[Sample("春眠不觉晓", source="春", remarks=["五绝"])],
        data={"desk/clean@1": {"steps": [clean]}},
        lineage=Ancestor(
            "a@1", parents=[Ancestor("b@1", relation="trained_on", licence="Apache-2.0", basis="declared")]
        ),
        anatomy=Anatomy([Part("embeddings", 1000)], {"layers": "2"}),
        settings={"seed": "0"},
    )


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("n_classes", [2, 5, 77])
def test_the_markup_is_valid_and_nothing_is_fetched(language: str, n_classes: int) -> None:
    page = render(full(language, n_classes))
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert not checker.open
    assert [name for name, count in checker.ids.items() if count > 1] == []
    assert not {target for target in checker.targets if target not in checker.ids}
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", page)
    assert not {"script", "link", "img", "iframe", "object"} & set(checker.tags)
    unsafe = [(tag, value) for tag, name, value in checker.attributes if name in ("src", "href") and value[:1] != "#"]
    assert unsafe == []


def test_every_section_is_drawn_and_absent_content_is_not() -> None:
    page = render(full())
    for name in SECTIONS:
        assert f'<section id="{name}"' in page
    empty = render(Report("t", "v"))
    assert "<section" not in empty


def test_user_text_is_escaped() -> None:
    page = render(full())
    assert "<b>还没</b>" not in page
    assert "&lt;b&gt;还没" in page
    assert "refund & <return>" not in page


def test_chinese_report_is_chinese() -> None:
    page = render(full("zh"))
    assert '<html lang="zh-CN">' in page
    for word in ("准确率", "混淆矩阵", "训练过程", "退款0", "损失", "置信度"):
        assert word in page
    for english in ("Confusion matrix", "Learning rate", "Class by class"):
        assert english not in page


def test_every_drawing_has_a_text_alternative() -> None:
    drawings = re.findall(r"<svg[^>]*>", render(full()))
    assert len(drawings) == 4
    for drawing in drawings:
        assert re.search(r'role="img" aria-label="[^"]{5,}"', drawing)


def test_the_same_content_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_evaluate_report import full\n"
        "from nacre.lifecycle.evaluate.report import render; sys.stdout.buffer.write(render(full('zh')).encode())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Shanghai", "SOURCE_DATE_EPOCH": "1"}
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    other = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    assert other == render(full("zh")).encode()


def test_plots_follow_the_page_theme() -> None:
    page = render(full())
    assert "var(--s1)" in page
    assert not re.search(r"#0a0\d00|#01010|#02020|#03030", page)
    assert "DejaVu" not in page


def test_both_languages_have_the_same_blanks() -> None:
    blanks = {key: tuple(sorted(re.findall(r"\{(\w+)\}", text)) for text in pair) for key, pair in WORDS.items()}
    assert {key for key, (english, chinese) in blanks.items() if english != chinese} == set()
    assert not {key for key, (_, chinese) in WORDS.items() if "about" in key and chinese.isascii()}


def test_an_unknown_language_is_an_error() -> None:
    with pytest.raises(ConfigError, match="language"):
        Words("fr")


def test_confused_pairs_come_by_count() -> None:
    matrix = np.array([[5, 3, 0], [1, 9, 0], [0, 3, 1]])
    assert metrics.worst_pairs(matrix, limit=2) == [(2, 1, 3, 0.75), (0, 1, 3, 0.375)]


def test_a_step_that_a_resumed_run_logged_twice_counts_once() -> None:
    from nacre.lifecycle.evaluate.plots import series_of

    rows = json.loads('[{"step": 2, "loss": 9}, {"step": 1, "loss": 3}, {"step": 2, "loss": 1}, {"event": "resumed"}]')
    assert series_of(Run("r", rows), "loss") == ([1.0, 2.0], [3.0, 1.0])
