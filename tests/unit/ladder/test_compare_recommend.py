"""The recommendation: which tier is enough, by which order, and the words for it in both languages."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ladder_results import RIGHT, answers_of, rows_of, rows_to_judge

from golden import matches
from nacre.errors import ConfigError
from nacre.ladder.compare import compare
from nacre.ladder.recommend import Asked, by_cost, good_enough, recommend
from nacre.ladder.result import Recommendation, Row, Versus
from nacre.ladder.words import SENTENCES, Words, money, points
from nacre.metrics.quality import Quality

EN = Asked("accuracy")


def row(tier: int, name: str, score: float = 0.9, cost: float | None = None, gap: Versus | None = None) -> Row:
    interval = {"score": score, "ci_low": score - 0.02, "ci_high": score + 0.02, "examples": 1000}
    return Row(tier, name, cost_per_1k=cost, vs_best=gap, seeds=(score,), **interval)


def gap(difference: float, low: float, high: float, *, examples: int = 1000, p_holm: float = 0.01) -> Versus:
    return Versus("tune", difference, low, high, 0.01, p_holm, "mcnemar", examples)


TUNE = row(4, "tune", 0.93, 1.0)


def names(rows: list[Row]) -> list[str]:
    return [one.name for one in by_cost(rows)]


def test_cheapest_first_and_of_like_costs_the_thinner() -> None:
    rows = [
        row(4, "tune", cost=1.0),
        row(1, "relay", cost=5.0),
        row(3, "retrieval", cost=1.09),
        row(0, "baseline", cost=0.01),
    ]
    assert names(rows) == ["baseline", "retrieval", "tune", "relay"]
    # within 10 % of the cheapest of its group, not of its neighbour: a chain of small steps is no equality
    chain = [row(4, "tune", cost=1.0), row(3, "retrieval", cost=1.08), row(1, "relay", cost=1.16)]
    assert names(chain) == ["retrieval", "tune", "relay"]


def test_unknown_costs_come_after_the_known_ones_of_thinner_tiers() -> None:
    rows = [row(4, "tune", cost=1.0), row(1, "relay"), row(0, "baseline", cost=2.0), row(5, "pretrain")]
    assert names(rows) == ["tune", "baseline", "relay", "pretrain"]
    assert names([row(4, "tune"), row(1, "relay"), row(0, "baseline")]) == ["baseline", "relay", "tune"]
    assert names([row(4, "tune", cost=0.0), row(1, "relay")]) == ["relay", "tune"]


def test_the_cheapest_tier_that_reaches_the_best_is_recommended() -> None:
    near = row(3, "retrieval", 0.92, 0.5, gap(-0.01, -0.025, 0.005))
    far = row(0, "baseline", 0.85, 0.01, gap(-0.08, -0.1, -0.06))
    found = recommend([far, near, TUNE], EN)
    assert (found.tier, found.name) == (3, "retrieval")
    assert "tier 4 (tune)" in found.why
    assert any("baseline" in line and "8.0 points less" in line for line in found.would_change)
    assert recommend([far, TUNE], EN).name == "tune"


def test_a_margin_lets_a_tier_in_that_is_measurably_worse() -> None:
    far = row(0, "baseline", 0.91, 0.01, gap(-0.02, -0.03, -0.01))
    assert recommend([far, TUNE], EN).name == "tune"
    found = recommend([far, TUNE], Asked("accuracy", margin=0.025))
    assert found.name == "baseline"
    assert "within 2.5 points" in found.headline
    with pytest.raises(ConfigError, match="margin"):
        Asked("accuracy", margin=2)


def test_a_tier_of_which_most_was_left_unmeasured_is_not_chosen() -> None:
    begun = replace(row(1, "relay", 0.9, 0.1, gap(-0.03, -0.2, 0.1, examples=30)), examples=30, unmeasured=970)
    assert not good_enough(begun, TUNE)
    found = recommend([begun, TUNE], EN)
    assert found.name == "tune"
    assert any("30 of 1,000" in line for line in found.would_change)


def test_the_size_of_a_test_that_would_decide_is_told() -> None:
    near = row(3, "retrieval", 0.92, 0.5, gap(-0.01, -0.03, 0.01))
    # the interval reaches 0.02 above the difference; four times the rows halve that
    assert any("about 4,000 test examples" in line for line in recommend([near, TUNE], EN).would_change)
    tiny = row(3, "retrieval", 0.929, 0.5, gap(-0.001, -0.02, 0.02))
    assert any("no test set of a usual size" in line for line in recommend([tiny, TUNE], EN).would_change)


def test_only_tiers_that_somebody_might_take_instead_are_offered() -> None:
    worse = row(0, "baseline", 0.85, 0.01, gap(-0.05, -0.07, -0.03))
    beaten = row(5, "pretrain", 0.80, 0.1, gap(-0.09, -0.11, -0.07))
    hopeless = row(1, "relay", 0.6, 0.001, gap(-0.33, -0.36, -0.3))
    offered = [line for line in recommend([worse, beaten, hopeless, TUNE], EN).would_change if "points less" in line]
    assert len(offered) == 1
    assert "baseline" in offered[0]


def test_unknown_costs_matter_only_among_tiers_that_are_good_enough() -> None:
    hopeless = row(1, "relay", 0.6, None, gap(-0.33, -0.36, -0.3))
    assert not any("Not known" in line for line in recommend([hopeless, TUNE], EN).would_change)
    rival = row(3, "retrieval", 0.92, None, gap(-0.01, -0.025, 0.005))
    assert any("Not known" in line and "retrieval" in line for line in recommend([rival, TUNE], EN).would_change)


def test_a_dearer_tier_that_may_come_out_ahead_is_told() -> None:
    best = row(0, "tune", 0.9, 0.01)
    near, far = (row(tier, name, 0.89, 1.0, found) for tier, name, found in (
        (3, "retrieval", gap(-0.01, -0.03, 0.01)), (5, "pretrain", gap(-0.08, -0.1, -0.06))
    ))  # fmt: skip
    told = recommend([best, near, far], EN).would_change
    assert [line for line in told if "may yet come out ahead" in line and "retrieval" in line]
    assert not any("pretrain" in line for line in told)
    alone = recommend([replace(best, seeds=(0.9, 0.9)), far], EN).would_change
    assert len(alone) == 1
    assert "every other tier scores less" in alone[0]


def test_an_exclusion_that_correction_would_undo_is_told() -> None:
    near = row(0, "baseline", 0.91, 0.01, gap(-0.02, -0.039, -0.001, p_holm=0.12))
    found = recommend([near, TUNE], EN)
    assert found.name == "tune"
    assert any("after correction" in line and "0.12" in line for line in found.would_change)


def test_a_thinner_tier_that_only_its_price_keeps_out_is_told() -> None:
    dear = row(1, "relay", 0.93, 8.0, gap(-0.001, -0.01, 0.01))
    found = recommend([dear, TUNE], EN)
    assert found.name == "tune"
    assert any("under 1.1 USD" in line and "now 8 USD" in line for line in found.would_change)


def test_one_tier_alone_is_a_result_and_not_a_choice() -> None:
    failed = Row(1, "relay", status="failed", reason="The upstream said no.", remedy="give a key")
    found = recommend([row(0, "baseline"), failed], EN)
    assert found.name == "baseline"
    assert "nothing to compare it with" in found.why
    assert any("The upstream said no. To measure it: give a key." in line for line in found.would_change)


def test_without_a_measured_tier_nothing_is_recommended() -> None:
    rows = [
        Row(0, "baseline", status="failed", reason="no test rows"),
        Row(1, "relay", status="skipped", reason="no key"),
    ]
    found = recommend(rows, EN)
    assert (found.tier, found.name) == (None, None)
    assert len(found.would_change) == 2


def _told(found: Recommendation) -> str:
    return "\n".join([f"{found.tier} {found.name}", found.headline, found.why, *(f"- {x}" for x in found.would_change)])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recommendations_read_as_they_did(language: str) -> None:
    tests = rows_to_judge(400, language)
    asked, quality = Asked("accuracy", language), Quality("classify", "accuracy")
    answers = answers_of(tests)
    texts = [
        _told(recommend(compare(rows_of(language, priced=priced), quality, tests, answers), asked))
        for priced in (True, False)
    ]
    weaker = answers_of(tests, {name: (shares[0] - 0.08 * (name != "tune"),) for name, shares in RIGHT.items()})
    rows = rows_of(language)
    rows[2] = Row(2, "prompt", status="skipped", reason="no engine can chat", remedy="name an upstream that can")
    weaker |= {"prompt": [], "relay": [weaker["relay"][0][:90]]}
    texts.append(_told(recommend(compare(rows, quality, tests, weaker), asked)))
    texts.append(_told(recommend([row(1, "relay", 0.7)], asked)))
    texts.append(_told(recommend([Row(1, "relay", status="failed", reason="x")], asked)))
    assert matches(f"ladder-recommendation-{language}.txt", "\n\n".join(texts) + "\n")


def test_both_languages_say_the_same_things() -> None:
    from string import Formatter

    for key, both in Words.TABLE.items():
        fields = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in both]
        assert fields[0] == fields[1] or key in ("why_alone",), key
        assert all(text for text in both) or key == "gap", key
    assert SENTENCES.keys() <= Words.TABLE.keys()


def test_a_task_in_another_language_gets_english_words() -> None:
    assert Words("fr").language == "en"
    assert Words("zh-Hant").language == "zh"


def test_figures_are_written_as_people_read_them() -> None:
    assert [money(value, "USD") for value in (0.0, 0.000012, 0.042, 1.5, 1234.5)] == [
        "0 USD", "0.000012 USD", "0.042 USD", "1.5 USD", "1,234.50 USD",
    ]  # fmt: skip
    assert [points(value) for value in (0.0, -0.0001, 0.012, -0.007)] == ["0.0", "0.0", "+1.2", "−0.7"]
