"""The ladder's report: offline, escaped, complete in both languages; charts whose labels do not collide; JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from ladder_results import answers_of, result_of, rows_of, rows_to_judge

from nacre.errors import ConfigError
from nacre.ladder.report import charts, render, write
from nacre.ladder.report.text import as_text
from nacre.ladder.result import LadderResult, Recommendation, Row
from nacre.ladder.words import Words

CHOICES = {"retrieval": {"chosen": "k=5", "tried": [{"k": 1, "accuracy": 0.91}, {"k": 5, "accuracy": 0.93}]}}


def full(language: str = "en", **more: Any) -> LadderResult:
    """Five measured tiers, one of them in part, and one that was skipped."""
    tests = rows_to_judge(400, language)
    answers = answers_of(tests)
    answers["relay"] = [answers["relay"][0][:260]]
    answers.pop("prompt")
    rows = rows_of(language)
    rows[2] = Row(2, "prompt", status="skipped", reason="no engine <can> chat", remedy="name an upstream")
    return replace(result_of(rows, tests, answers, language), **more)


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "path", "circle", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_whole_and_needs_nothing_else(language: str) -> None:
    page = render(full(language), CHOICES)
    parsed = _Page(page)
    assert parsed.open == []
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe", "object"}
    for _, attributes in parsed.tags:
        assert str(attributes.get("href", "#")).startswith("#")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
    assert "@import" not in page
    assert "url(" not in page
    anchors = {attributes["id"] for _, attributes in parsed.tags if "id" in attributes}
    assert all(str(attributes["href"])[1:] in anchors for tag, attributes in parsed.tags if tag == "a")
    said = " ".join(parsed.text)
    recommended = full(language).recommended
    assert recommended.headline in said
    assert all(line in said for line in recommended.would_change)
    missing = [
        key for key in Words.TABLE if re.search(rf"(?<![\w.@-]){re.escape(key)}(?![\w.@-])", said) and "_" in key
    ]
    assert missing == []


def test_every_section_is_there_in_both_languages() -> None:
    sections = [
        [attributes["id"] for tag, attributes in _Page(render(full(language), CHOICES)).tags if tag == "section"]
        for language in ("en", "zh")
    ]
    assert sections[0] == sections[1]
    assert len(sections[0]) == 9


def test_what_comes_from_outside_is_escaped() -> None:
    result = full(task="<script>alert(1)</script>", notes=("</style><b>",))
    page = render(result, {"retrieval": {"prompt": "<img src=x onerror=1>", "list": ["<i>"]}})
    assert "<script" not in page
    assert "<img" not in page
    assert "</style><b>" not in page
    assert page.count("</style>") == 1
    assert "&lt;again&gt; &amp; again" in page


def test_a_tier_that_could_not_run_is_a_row_with_reason_and_remedy() -> None:
    page = render(full(), {})
    assert "no engine &lt;can&gt; chat" in page
    assert "Remedy: name an upstream" in page


def test_an_unknown_cost_is_never_a_zero() -> None:
    tests = rows_to_judge()
    result = result_of(rows_of(priced=False), tests, answers_of(tests))
    page = render(result, {})
    assert "No cost is known" in page
    assert "unknown" in page
    assert not re.search(r"(?<![\d.])0 USD", page)
    assert {cells[3] for cells in as_text(result).rows} == {"unknown"}
    assert all(row["cost_per_1k"] is None for row in result.to_dict()["rows"])


def test_the_same_result_gives_the_same_bytes(tmp_path: Path) -> None:
    write(full(), tmp_path / "one.html", CHOICES)
    write(full(), tmp_path / "two.html", CHOICES)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_choices_are_read_from_the_rungs(tmp_path: Path) -> None:
    result = full()
    (tmp_path / "choices.json").write_text('{"tried": [{"k": 7}]}', encoding="utf-8")
    rows = tuple(replace(row, folder=str(tmp_path)) if row.name == "retrieval" else row for row in result.rows)
    assert ">7<" in render(replace(result, rows=rows))
    (tmp_path / "choices.json").write_text("{", encoding="utf-8")
    assert "choices.json: Expecting" in render(replace(result, rows=rows))


def test_no_path_of_this_machine_is_in_the_page(tmp_path: Path) -> None:
    result = full()
    rows = tuple(replace(row, folder=str(tmp_path)) for row in result.rows)
    assert str(tmp_path) not in render(replace(result, rows=rows))


def test_a_ladder_without_a_measured_tier_is_still_a_page() -> None:
    rows = (Row(0, "baseline", status="failed", reason="it broke"),)
    nothing = LadderResult("t", "accuracy", "classify", "en", {}, rows, Recommendation(None, None, "None."))
    page = render(nothing)
    assert "it broke" in page
    assert _Page(page).open == []
    assert as_text(nothing).rows[0][-1] == "it broke"


def _texts(svg: str) -> list[tuple[str, float, float, float]]:
    """Every text of a drawing: what it says, its left and right end, its baseline."""
    from nacre.lifecycle.evaluate.heatmap import text_width

    found = []
    for element in ElementTree.fromstring(svg).iter("text"):
        said, x, y = element.text or "", float(element.get("x", "0")), float(element.get("y", "0"))
        wide = text_width(said, 13)
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[element.get("text-anchor", "start")]
        found.append((said, left, left + wide, y))
    return found


@pytest.mark.parametrize("costs", [[1, 1.01, 1.02, 1.03], [0.001, 0.0011, 5, 5.1], [None] * 4, [1, None, None, 2]])
def test_labels_of_the_chart_of_quality_do_not_collide(costs: list[float | None]) -> None:
    points = [charts.Point(f"{i} tier name", 0.9, 0.88, 0.92, cost, i == 1) for i, cost in enumerate(costs)]
    svg = charts.quality(points, (0.88, 0.92), charts.QualityWords("alt", "y", "x", "unknown"))
    texts = _texts(svg)
    for said, left, right, y in texts:
        assert left >= -1, said
        assert right <= 761, said
        assert 0 < y < 400
    names = [text for text in texts if "tier name" in text[0]]
    assert len(names) == 4
    for one, other in combinations(names, 2):
        assert one[1] >= other[2] or other[1] >= one[2] or abs(one[3] - other[3]) >= 13


@pytest.mark.parametrize(
    ("costs", "log"), [([0.001, 5.0], True), ([1.0, 5.0], False), ([0.0, 100.0], False), ([3.0], False)]
)
def test_the_cost_axis_is_logarithmic_where_costs_differ_by_orders(costs: list[float], log: bool) -> None:
    assert charts.is_log(costs) is log
    points = [charts.Point(str(i), 0.9, 0.9, 0.9, cost) for i, cost in enumerate(costs)]
    ElementTree.fromstring(charts.quality(points, None, charts.QualityWords("a", "y", "x", "u")))


def test_ranges_draw_zero_and_one_value() -> None:
    spans = [charts.Span("a", 0.0, "0 s"), charts.Span("b", 3.0, "3 / 5", 5.0)]
    for some in (spans, spans[:1], spans[1:]):
        assert len(_texts(charts.ranges(some, "alt"))) >= 2 * len(some)


def test_json_is_the_contract_without_nan() -> None:
    result = full()
    rows = (replace(result.rows[0], latency_ms_p95=float("nan")), *result.rows[1:])
    plain = json.loads(json.dumps(replace(result, rows=rows).to_dict(), allow_nan=False))
    assert list(plain)[:5] == ["task", "metric", "machine", "rows", "recommended"]
    contract = [
        "tier", "name", "solver", "score", "ci_low", "ci_high", "latency_ms_p50", "latency_ms_p95", "cost_per_1k",
        "build_seconds", "peak_memory_mib", "trained_parameters", "owns", "lineage", "status",
    ]  # fmt: skip
    assert list(plain["rows"][0])[: len(contract)] == contract
    assert plain["rows"][0]["latency_ms_p95"] is None
    assert set(plain["rows"][0]["owns"]) == {"kernel", "weights", "data", "prompt", "index"}
    assert plain["rows"][0]["owns"]["data"] == {
        "state": "borrowed",
        "from": "data:desk",
        "licence": "CC BY 4.0",
        "notes": [],
    }
    assert {"tier", "why"} <= set(plain["recommended"])
    assert plain["rows"][2]["score"] is None


def test_rows_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="no tier 6"):
        Row(6, "x")
    with pytest.raises(ConfigError, match="without a reason"):
        Row(1, "relay", status="failed")


def test_the_table_for_a_terminal() -> None:
    shown = as_text(full())
    assert all(len(cells) == len(shown.head) for cells in shown.rows)
    assert shown.rows[0][0] == "0 baseline *"
    assert shown.rows[0][1].startswith("90.5")
    assert shown.rows[1][7] == "260 of 400"
    assert shown.rows[2][7:] == ("skipped", "no engine <can> chat")
    assert shown.rows[3][6] == "(k)(w)d·I"
    assert shown.lines[0] == full().recommended.why
    assert as_text(full("zh")).rows[4][0] == "4 微调"
