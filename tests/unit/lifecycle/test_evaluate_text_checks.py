"""Form, rhyme, novelty and grammar of generated text."""

from __future__ import annotations

import random

import pytest

from nacre.lifecycle.evaluate import novelty, poem, python_code

FOUR_BY_FIVE = "山前一片云，水上两三人。问我何时去，花开满树春。"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (FOUR_BY_FIVE, "五绝"),
        ("山前一片云\n水上两三人\n问我何时去\n花开满树春", "五绝"),
        ("山前一片云，水上两三人。问我何时去，花开满树。", None),
        ("山前一片云，水上两三人。", None),
        ("山前一片云，水上two人。问我何时去，花开满树春。", None),
        ("", None),
        ("。".join(["山前一片白云飞"] * 8), "七律"),
    ],
)
def test_form(text: str, form: str | None) -> None:
    assert poem.form_of(text) == form


def test_rhyme_classes_know_readings_and_traditional_characters() -> None:
    pytest.importorskip("pypinyin", reason="rhyme needs the package pypinyin")
    assert poem.rhyme_classes("春") == {"文"} == poem.rhyme_classes("人")
    assert poem.rhyme_classes("雲") == poem.rhyme_classes("云")
    assert poem.rhyme_classes("诗") == {"支"}  # spelt shi, sounds unlike 齐
    assert poem.rhyme_classes("溪") == {"齐"}
    assert poem.rhyme_classes("東") == {"庚"}
    assert {"开", "波"} & poem.rhyme_classes("白")
    assert poem.rhyme_classes("x") == frozenset()


def test_every_final_has_a_class() -> None:
    pypinyin = pytest.importorskip("pypinyin", reason="rhyme needs the package pypinyin")
    finals = {
        final
        for code in range(0x4E00, 0x9FA6)
        for found in pypinyin.pinyin(chr(code), style=pypinyin.Style.FINALS, strict=True, errors="ignore")
        for final in found
    }
    unknown = finals - set(poem._CLASS_OF) - {""}
    assert not {final for final in unknown if not final.startswith(("m", "n", "h"))}, unknown


def test_rhyme() -> None:
    pytest.importorskip("pypinyin", reason="rhyme needs the package pypinyin")
    assert poem.rhymes(FOUR_BY_FIVE)
    assert not poem.rhymes(FOUR_BY_FIVE.replace("春", "花"))
    assert not poem.rhymes(FOUR_BY_FIVE.replace("春", "人")), "repeating the character is no rhyme"


def test_shares() -> None:
    shares = poem.check_poems([FOUR_BY_FIVE, "不成诗"], rhyme=False)
    assert (shares.valid_form, shares.rhyming, shares.forms) == (0.5, None, {"五绝": 1})


def brute_longest(sample: str, training: list[str]) -> int:
    return max(
        (end - start for start in range(len(sample)) for end in range(start + 1, len(sample) + 1)
         if any(sample[start:end] in text for text in training)),
        default=0,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_longest_shared_run_is_exact(seed: int) -> None:
    rng = random.Random(seed)
    samples = ["".join(rng.choices("春花秋月", k=rng.randrange(0, 14))) for _ in range(4)]
    training = ["".join(rng.choices("春花秋月雪", k=rng.randrange(0, 25))) for _ in range(5)]
    assert novelty.longest_shared(samples, training) == [brute_longest(sample, training) for sample in samples]


def test_runs_do_not_cross_training_texts() -> None:
    assert novelty.longest_shared(["春花秋月"], ["春花", "秋月"]) == [2]


def test_copies_are_found_under_other_punctuation() -> None:
    found = novelty.novelty(
        [FOUR_BY_FIVE.replace("，", "\n").replace("。", "\n"), "山前一片云，我自独行行。"], [FOUR_BY_FIVE]
    )
    assert found.copied_texts == 0.5
    assert found.copied_lines == pytest.approx(5 / 6)
    assert found.longest == (20, 5)


def test_code_is_counted_in_words() -> None:
    assert novelty.longest_shared(["x = foo(1)"], ["y = foo(1)"], novelty.words) == [5]


def test_distinct() -> None:
    assert novelty.distinct(["aaaa"], 1) == 0.25
    assert novelty.distinct(["ab", "ab"], 2) == 0.5
    assert novelty.distinct([""], 2) == 0.0


@pytest.mark.parametrize(
    ("source", "parses", "clean"),
    [
        ("def f(x):\n    return x\n", True, True),
        ("x = 1 is 1\n", True, False),
        ("return 5\n", True, False),
        ("def f(:\n", False, False),
        ("x = '\x00'", False, False),
        ("", False, False),
        ("# only a remark\n", False, False),
        ("(" * 5000, False, False),
    ],
)
def test_code(source: str, parses: bool, clean: bool) -> None:
    shares = python_code.summarise([python_code.check_code(source)])
    assert (shares.parses, shares.compiles_clean) == (float(parses), float(clean))


def test_a_cut_sample_keeps_its_sound_lines() -> None:
    check = python_code.check_code("a = 1\nb = 2\nc = (\n")
    assert not check.parses
    assert check.sound_lines == pytest.approx(2 / 3)


def test_code_is_never_run(tmp_path: object) -> None:
    assert python_code.check_code("raise SystemExit(9)\n").parses
