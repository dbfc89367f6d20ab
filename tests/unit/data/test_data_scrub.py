"""Self-identification of teachers: found where a model speaks of itself, not where somebody speaks of it."""

from __future__ import annotations

import pytest

from nacre.data.report import DropReport
from nacre.data.scrub import ScrubConfig, find, mask, scrub
from nacre.data.scrub_patterns import PATTERNS
from nacre.errors import ConfigError

OWN = {
    "en.thing_made_by": "I am a large language model, trained by Google.",
    "en.made_by": "I was created by OpenAI to help people.",
    "en.named": "I'm ChatGPT, how can I help?",
    "en.shared_name": "Hello! I'm Claude, an AI assistant.",
    "en.shared_name_made_by": "I am Gemini, a family of models built by Google.",
    "en.as_thing_made_by": "As an AI language model developed by OpenAI, I cannot browse.",
    "en.maker": "That is what my creators at Anthropic intended.",
    "en.as_ai": "As an AI language model, I do not have feelings.",
    "en.cutoff": "As of my last knowledge update in 2021, it had not.",
    "zh.thing_made_by": "我是由阿里云开发的大规模语言模型。",
    "zh.made_by": "我由百度公司研发，能写诗。",
    "zh.named": "您好，我是通义千问。",
    "zh.thing_named": "我是一款人工智能助手，名叫Kimi。",
    "zh.maker": "深度求索公司开发了我。",
    "zh.as_ai": "作为一个人工智能语言模型，我没有情感。",
    "zh.cutoff": "我的知识截止到2021年9月。",
}
OTHERS = [
    "OpenAI released GPT-4 in March 2023, and Google answered with Gemini.",
    "I work at Google, where I was trained by Google engineers for a month.",
    "I was trained by Google to sell adverts in 2010.",
    "I am a ChatGPT user.",
    "I'm Claude, a French engineer.",
    "I am a Gemini, born in June.",
    "The company sells it as an AI assistant developed by OpenAI.",
    "I am a fan of the app developed by OpenAI.",
    "As an AI researcher, I read a lot.",
    "How do I use ChatGPT?",
    "阿里云是阿里巴巴集团旗下公司，开发了通义千问。",
    "我是阿里云的员工，负责开发数据库。",
    "我是通义千问的用户。",
    "我喜欢吃豆包。",
    "作为人工智能专业的学生，我每天学习。",
    "作为AI行业的从业者，我们要谨慎。",
    "作为一个老师，我认为作业太多。",
    "百度开发了我们常用的搜索引擎。",
    "我是腾讯开发部的程序员。",
    "我的知识有限。",
]


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_every_pattern_finds_its_example(name: str) -> None:
    assert name in {found for found, _ in find(OWN[name])}


@pytest.mark.parametrize("text", OTHERS)
def test_ordinary_mentions_are_left_alone(text: str) -> None:
    assert find(text) == []


def answered(text: str) -> dict[str, object]:
    return {
        "messages": [
            {"role": "user", "content": "你是谁？我是由OpenAI开发的模型吗"},
            {"role": "assistant", "content": text},
        ]
    }


def test_only_the_assistant_is_judged() -> None:
    rows = [
        answered("我是小贝。"),
        answered(OWN["zh.named"]),
        {"source": OWN["zh.named"], "target": "好"},
        {"text": OWN["zh.named"]},
    ]
    report = DropReport()
    assert list(scrub(rows, ScrubConfig(), report)) == [rows[0], rows[2], rows[3]]
    assert report.step("scrub").dropped["self-identification zh.named"].count == 1
    assert len(list(scrub(rows, ScrubConfig(fields=("text",)), DropReport()))) == 3


def test_report_keeps_the_rows_and_counts() -> None:
    report = DropReport()
    assert len(list(scrub([answered(OWN["en.named"])], ScrubConfig(action="report"), report))) == 1
    assert report.step("scrub").noted["self-identification en.named"].count == 1


def test_mask_writes_placeholders_in_the_sentence_and_nowhere_else() -> None:
    text = "我是通义千问，由阿里云开发。阿里云总部在杭州。"
    assert mask(text) == "我是{{name}}，由{{author}}开发。阿里云总部在杭州。"
    assert (
        mask("I am Qwen2.5, created by Alibaba Cloud. Alibaba is big.")
        == "I am {{name}}, created by {{author}}. Alibaba is big."
    )
    report = DropReport()
    kept = list(scrub([answered(text), answered(OWN["zh.as_ai"])], ScrubConfig(action="mask"), report))
    assert [row["messages"][1]["content"] for row in kept] == [mask(text)]
    assert report.step("scrub").rows_dropped == 1
    assert find(kept[0]["messages"][1]["content"]) == []


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="action"):
        ScrubConfig(action="delete")  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as error:
        ScrubConfig(patterns=("zh.name",))
    assert "zh.named" in error.value.remedy
