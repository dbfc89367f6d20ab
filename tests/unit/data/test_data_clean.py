"""Cleaning rules, one by one, in Chinese and English: what they take and what they must leave."""

from __future__ import annotations

import pytest

from nacre.data.clean import DOCUMENT_EDITS, DOCUMENT_FILTERS, EDITS, CleanConfig, clean, drop_repeated_lines
from nacre.data.cleaning.boilerplate import boilerplate, is_boilerplate
from nacre.data.cleaning.language import language
from nacre.data.cleaning.repetition import quality, repeated_ngrams, repeated_parts
from nacre.data.report import DropReport
from nacre.errors import ConfigError


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("nfc", "cafe\u0301", "café"),
        ("nfc", "全角ＡＢＣ１２３", "全角ＡＢＣ１２３"),
        ("controls", "a\x00b\x07\r\nc\u2028d\te", "ab\nc\nd\te"),
        ("zero_width", "零\u200b宽\ufeff字\u00ad符\u200d", "零宽字符"),
        ("zero_width", "👨\u200d👩\u200d👧 می\u200cخواهم", "👨\u200d👩\u200d👧 می\u200cخواهم"),
        ("zero_width", "a\u202eb hidden\U000e0041\U000e0042", "ab hidden"),
        ("zero_width", "🏴\U000e0067\U000e0062\U000e007f", "🏴\U000e0067\U000e0062\U000e007f"),
        ("html", "<p>你好，<b>世界</b>！</p><script>var a=1</script>", "\n你好，世界！\n"),
        ("html", "AT&amp;T &lt;3 &#20320;&nbsp;!", "AT&T <3 你 !"),
        ("html", "if a < b and c > d: List<String> x; ?a=1&copy=2", "if a < b and c > d: List<String> x; ?a=1&copy=2"),
        ("wiki", "'''唐朝'''是[[中国历史|中国]]的[[朝代]]。<ref>书</ref>", "唐朝是中国的朝代。"),
        (
            "wiki",
            "== History ==\n{{Infobox|a={{b}}}}The [http://x.org town] [[File:a.jpg|thumb|a [[b]]]]",
            "History\nThe town ",
        ),
        ("wiki", "Hello {{name}}, it's a 'quoted' word", "Hello {{name}}, it's a 'quoted' word"),
        (
            "markdown",
            "## 标题 ##\n见[文档](http://a.b/c_(d))和**重点**\n```python\nx = 1\n```",
            "标题\n见文档和重点\nx = 1\n",
        ),
        (
            "markdown",
            "2 ** 3 ** 4, __init__, * item, array[0](x, y), #tag",
            "2 ** 3 ** 4, __init__, * item, array[0](x, y), #tag",
        ),
        ("spaces", "  a  \n\n\n\n    b\t\n", "a\n\n    b"),
    ],
)
def test_edits(rule: str, before: str, after: str) -> None:
    assert EDITS[rule](before) == after


@pytest.mark.parametrize("rule", sorted(EDITS))
@pytest.mark.parametrize(
    "text",
    ["退货要几天？", "Where is my parcel? I paid $5 & left.", "床前明月光，\n疑是地上霜。", "x = [i for i in y]"],
)
def test_edits_leave_plain_text_alone(rule: str, text: str) -> None:
    assert EDITS[rule](text) == text


@pytest.mark.parametrize(
    "line",
    [
        "We use cookies to improve your experience. Read our policy.",
        "© 2024 Example Ltd. All rights reserved.",
        "Home | About us | Contact",
        "Skip to main content",
        "首页 > 新闻中心 > 下载",
        "版权所有 © 某某公司",
        "京ICP备12345678号-1",
        "未经授权，不得转载",
        "本网站使用cookie来改善体验",
        "上一篇  下一篇",
        "责任编辑：张三",
    ],
)
def test_boilerplate_lines_go_from_documents_only(line: str) -> None:
    assert boilerplate(f"第一段。\n{line}\n第二段。") == "第一段。\n第二段。"
    assert boilerplate(line) == line


@pytest.mark.parametrize(
    "line",
    [
        "I went home and searched for the menu.",
        "他把登录的密码忘了。",
        "The cookies were delicious.",
        "首页改版之后，流量涨了三成。",
        "- -",
        "",
    ],
)
def test_text_is_no_boilerplate(line: str) -> None:
    assert not is_boilerplate(line)


def test_lines_that_repeat_over_documents_are_removed_once_they_are_many() -> None:
    rows = [{"text": f"某公司内部资料\n正文第{'一二三四五六'[n]}段\n第 {n} 页，共 9 页"} for n in range(6)]
    report = DropReport()
    kept = list(drop_repeated_lines(rows, 5, report))
    assert [row["text"] for row in kept] == [f"正文第{'一二三四五六'[n]}段" for n in range(6)]
    assert list(drop_repeated_lines(rows, 7, DropReport())) == rows
    with pytest.raises(ConfigError, match="two passes"):
        list(drop_repeated_lines(iter(rows), 5, DropReport()))


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("好", "zh"),
        ("我想退 iPhone 15 Pro Max", "zh"),
        ("refund pls", "en"),
        ("12345 !!", "und"),
        ("これはとても良い商品です", "ja"),
        ("이 제품은 아주 좋습니다", "ko"),
        ("Der Kunde möchte seine Bestellung zurückgeben, weil die Ware beschädigt angekommen ist.", "de"),
        ("The customer would like to return the order because the goods arrived damaged.", "en"),
    ],
)
def test_language_by_script_for_short_texts_and_by_model_for_long_ones(text: str, code: str) -> None:
    pytest.importorskip("py3langid")
    assert language(text) == code


ENGLISH = (
    "The shop was quiet that morning, and the owner had time to sort the letters that came with the first post. "
    "Most of them were bills, but one had a stamp that he did not know, with a bird on it and a word in a language "
    "he could not read. He turned it over, and on the back there was a name: his own, in his father's hand."
)
CHINESE = (
    "那天早晨店里很安静，老板有空整理第一班邮差送来的信件。大多数是账单，只有一封贴着他不认识的邮票，上面画着一只鸟，"
    "还有一个他读不懂的词。他把信翻过来，看到背面写着一个名字，正是他自己的名字，字迹像是出自父亲之手。他坐了很久，才拿起"
    "裁纸刀，慢慢把它打开。信纸已经发黄，折痕处几乎要断开，开头只有一句话：等你看到这些字，海边的房子应该已经卖掉了。"
)


@pytest.mark.parametrize("text", [ENGLISH, CHINESE])
def test_prose_passes_every_document_filter(text: str) -> None:
    assert repeated_parts(text) is None
    assert repeated_ngrams(text) is None
    assert quality(text) is None


@pytest.mark.parametrize("text", ["buy cheap watches now " * 40, "点击购买低价手表" * 40, ENGLISH + " the post" * 40])
def test_repetition_is_found_in_both_languages(text: str) -> None:
    assert repeated_ngrams(text) is not None


def test_repeated_lines_and_paragraphs_are_found() -> None:
    assert "lines" in str(repeated_parts("重复的一行\n" * 5 + "另一行"))
    assert "paragraphs" in str(repeated_parts("\n".join(f"第{n}行" for n in range(40)) + "\n\n又一段" * 3 + "\n\n完"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(f"- item number {n} of the very long list of the shop" for n in range(20)), "list items"),
        ("\n".join(f"read the story number {n} to the end ..." for n in range(20)), "ellipsis"),
        (" ".join(["antidisestablishmentarianism"] * 60), "longer than 10"),
        (" ".join(["12:30 4711"] * 60), "a letter"),
        (" ".join(["green house garden window"] * 20), "stop words"),
    ],
)
def test_quality_rules_of_gopher(text: str, reason: str) -> None:
    assert reason in str(quality(text))


def test_short_texts_are_never_judged_by_repetition() -> None:
    assert repeated_ngrams("好好好好好好") is None
    assert quality("ok ok ok") is None


def test_clean_counts_edits_and_drops_with_reasons() -> None:
    rows = [
        {"text": "好\u200b的"},
        {"text": "\u200b\x00"},
        {"text": "Das ist ein deutscher Satz, der lang genug ist, um erkannt zu werden."},
    ]
    report = DropReport()
    config = CleanConfig(filters=("language", "length"), max_characters=1000)
    assert list(clean(rows, config, report)) == [{"text": "好的"}]
    step = report.step("clean")
    assert set(step.dropped) == {"empty text", "language de"}
    assert step.changed["zero_width"].count == 2
    assert step.rows_in == step.rows_out + step.rows_dropped


def test_pairs_messages_and_tokens_are_cleaned_in_place() -> None:
    rows = [
        {"source": "a\u200b", "target": "好\x00", "id": 7},
        {"messages": [{"role": "user", "content": "hi\x07"}]},
        {"tokens": ["cafe\u0301", "\u200b", "好"], "tags": ["O", "O", "O"]},
    ]
    report = DropReport()
    assert list(clean(rows, CleanConfig(), report)) == [
        {"source": "a", "target": "好", "id": 7},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"tokens": ["café", "\u200b", "好"], "tags": ["O", "O", "O"]},
    ]
    assert sum(event.count for event in report.step("clean").noted.values()) == 1


def test_unknown_rules_name_the_closest() -> None:
    with pytest.raises(ConfigError) as error:
        CleanConfig(edits=("zerowidth",))
    assert "zero_width" in error.value.remedy
    assert set(DOCUMENT_EDITS) == set(EDITS)
    CleanConfig(edits=DOCUMENT_EDITS, filters=DOCUMENT_FILTERS)
