"""Teachers in conversations: both languages alike, hard negatives that users and articles say, and what scrub removes.

The sentences were written before the patterns were tried on them and are not those of `audit_teachers.jsonl`.
"""

from __future__ import annotations

import pytest

from nacre.data.report import DropReport
from nacre.data.scrub import ScrubConfig, scrub
from nacre.lifecycle.audit.data.teachers import listen

PLANTED = {
    "en": (
        "I am ChatGPT, a language model created by OpenAI.",
        "I'm an AI assistant developed by Anthropic, so I cannot taste soup.",
        "As a language model trained by Google, I have no opinion on that.",
        "I was built by Alibaba Cloud to answer questions.",
        "My name is Qwen and I am happy to help.",
        "OpenAI trained me on text up to last year.",
        "I am a chatbot made by Baidu.",
        "My developers at DeepSeek gave me this rule.",
    ),
    "zh": (
        "我是ChatGPT，由OpenAI开发的语言模型。",
        "我是Anthropic开发的人工智能助手，尝不到汤的味道。",
        "作为由谷歌训练的语言模型，我对此没有看法。",
        "我由阿里云研发，用来回答问题。",
        "我叫通义千问，很乐意帮忙。",
        "OpenAI训练了我，所用文本截至去年。",
        "我是百度研发的聊天机器人。",
        "我的开发者是深度求索，他们定了这条规则。",
    ),
}
# (who speaks, what): none of these is a model naming its maker.
NEGATIVES = {
    "en": (
        ("user", "Are you ChatGPT?"),
        ("user", "I am ChatGPT, a model by OpenAI. Pretend to be my student."),
        ("assistant", "ChatGPT is a chatbot that OpenAI released in 2022."),
        ("assistant", "The company was founded by people who had worked at Google."),
        ("assistant", "No, I am not ChatGPT."),
        ("assistant", "She wrote: the assistant was made by Microsoft and liked puns."),
        ("assistant", "To call Claude from Python, install the client first."),
        ("assistant", "I am sure that Gemini rises in the east in June."),
    ),
    "zh": (
        ("user", "你是ChatGPT吗？"),
        ("user", "我是ChatGPT，由OpenAI开发。请假装是我的学生。"),
        ("assistant", "ChatGPT是OpenAI于2022年发布的聊天机器人。"),
        ("assistant", "这家公司由曾在谷歌工作的人创办。"),
        ("assistant", "不，我不是ChatGPT。"),
        ("assistant", "她写道：那个助手由微软制作，爱讲双关语。"),
        ("assistant", "要在Python里调用文心一言，请先安装客户端。"),
        ("assistant", "我相信双子座六月在东方升起。"),
    ),
}
REFUSALS = {
    "en": (
        "I'm sorry, but I can't help with that.",
        "I cannot assist with this request.",
        "I am unable to provide that.",
    ),
    "zh": ("抱歉，我无法协助。", "很抱歉，我不能提供这些内容。", "对不起，我不能回答这个问题。"),
}


def _said(role: str, text: str) -> dict[str, object]:
    turns = [
        {"role": "user", "content": "..."},
        {"role": role, "content": text},
        {"role": "assistant", "content": "好 ok"},
    ]
    return {"messages": turns}


@pytest.mark.parametrize(("language", "found"), [("en", 8), ("zh", 7)])
def test_planted_identifications_are_heard_and_hard_negatives_are_not(language: str, found: int) -> None:
    heard = [listen([_said("assistant", text)]).named for text in PLANTED[language]]
    wrong = [text for role, text in NEGATIVES[language] if listen([_said(role, text)]).named]
    assert wrong == []
    assert sum(heard) == found, [text for text, one in zip(PLANTED[language], heard, strict=True) if not one]


@pytest.mark.parametrize(("language", "found"), [("en", 8), ("zh", 7)])
def test_scrub_recall_on_planted_rows_is_what_the_audit_says(language: str, found: int) -> None:
    rows = [_said("assistant", text) for text in PLANTED[language]]
    others = [_said(role, text) for role, text in NEGATIVES[language]]
    kept = list(scrub(rows + others, ScrubConfig(), DropReport()))
    removed = [row for row in rows if row not in kept]
    assert [row for row in others if row not in kept] == []
    assert len(removed) == found
    assert listen(rows).scrubbed == found


@pytest.mark.parametrize("language", ["en", "zh"])
def test_refusals_of_assistants_alone(language: str) -> None:
    assert listen([_said("assistant", text) for text in REFUSALS[language]]).refusals == len(REFUSALS[language])
    assert listen([_said("user", text) for text in REFUSALS[language]]).refusals == 0
