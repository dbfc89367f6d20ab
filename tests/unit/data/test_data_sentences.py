"""Where sentences end."""

from __future__ import annotations

from nacre.data.sentences import sentences


def test_sentences_end_where_people_end_them() -> None:
    assert list(sentences("He said “go!” It was 3.5 km. Then?\nEnd")) == [
        "He said “go!”",
        "It was 3.5 km.",
        "Then?",
        "End",
    ]
    found = list(sentences("还没到。“谢谢！”她说……好吗？\n\n再见"))
    assert found == [
        "还没到。",
        "“谢谢！”",
        "她说……",
        "好吗？",
        "再见",
    ]
