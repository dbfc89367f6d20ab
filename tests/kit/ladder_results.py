"""Made-up results of a ladder, as tests of the comparison and of its reports need them. Deterministic."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from nacre.engine.prices import Prices
from nacre.ladder.between import between
from nacre.ladder.compare import compare
from nacre.ladder.recommend import Asked, recommend
from nacre.ladder.result import PARTS, Holding, LadderResult, Row
from nacre.metrics.quality import Quality

_TEXTS = {
    "en": {
        "refund": "I want my money back for order {n}",
        "delivery": "Where is parcel {n}? It should have come on Monday",
        "password": "The link to reset my password has expired <again> & again ({n})",
        "invoice": "Please send the invoice for {n} once more",
    },
    "zh": {
        "退款": "订单 {n} 我想申请退款，钱什么时候退回来？",
        "物流": "包裹 {n} 到哪里了？说好周一送到的",
        "密码": "重置密码的链接又失效了，编号 {n}",
        "发票": "请再开一次 {n} 的发票",
    },
}
_SOLVERS = {
    "baseline": ("TF-IDF of words and characters + linear SVM", "字符与词的 TF-IDF + 线性 SVM"),
    "relay": ("similarity of text and label, all-MiniLM-L6-v2", "文本与标签的相似度，all-MiniLM-L6-v2"),
    "prompt": ("6 label texts chosen on validation rows", "在验证集上选出的 6 条标签文本"),
    "retrieval": ("vote of the 5 nearest neighbours", "5 个最近邻投票"),
    "tune": ("MiniLM, whole, 4 epochs", "MiniLM，全参数，4 轮"),
    "pretrain": ("own encoder of 1.9 M parameters", "自有编码器，190 万参数"),
}
# tier -> share of right answers per seed
RIGHT: Mapping[str, tuple[float, ...]] = {
    "baseline": (0.905,),
    "relay": (0.63,),
    "prompt": (0.72,),
    "retrieval": (0.925,),
    "tune": (0.93, 0.935, 0.928),
    "pretrain": (0.84,),
}
_FACTS: Mapping[str, dict[str, Any]] = {
    "baseline": {"latency_ms_p50": 0.41, "latency_ms_p95": 0.72, "cost_per_1k": 0.00011, "build_seconds": 1.9},
    "relay": {"latency_ms_p50": 8.2, "latency_ms_p95": 14.0, "cost_per_1k": 0.02, "build_seconds": 0.8},
    "prompt": {"latency_ms_p50": 8.9, "latency_ms_p95": 15.5, "cost_per_1k": 0.031, "build_seconds": 41.0},
    "retrieval": {"latency_ms_p50": 9.6, "latency_ms_p95": 17.2, "cost_per_1k": 0.024, "build_seconds": 22.0},
    "tune": {"latency_ms_p50": 6.1, "latency_ms_p95": 9.4, "cost_per_1k": 0.0017, "build_seconds": 312.0},
    "pretrain": {"latency_ms_p50": 3.0, "latency_ms_p95": 4.4, "cost_per_1k": 0.0008, "build_seconds": 2420.0},
}
_PARAMETERS = {"baseline": 61_450, "retrieval": 0, "relay": 0, "prompt": 0, "tune": 22_713_216, "pretrain": 1_901_060}


def rows_to_judge(n: int = 400, language: str = "en") -> list[dict[str, Any]]:
    """Test rows of a task of four classes."""
    draw = random.Random(7)
    texts = _TEXTS[language]
    labels = [draw.choice(sorted(texts)) for _ in range(n)]
    return [{"id": str(i), "text": texts[label].format(n=1000 + i), "label": label} for i, label in enumerate(labels)]


def answers_of(
    tests: list[dict[str, Any]], right: Mapping[str, tuple[float, ...]] = RIGHT
) -> dict[str, list[list[Any]]]:
    """Values of every tier and seed, right with the given probability; hard rows are hard for every tier."""
    labels = sorted({row["label"] for row in tests})
    hard = [random.Random(f"hard {row['id']}").random() for row in tests]
    answers: dict[str, list[list[Any]]] = {}
    for tier, shares in right.items():
        answers[tier] = []
        for seed, share in enumerate(shares):
            draw = random.Random(f"{tier} {seed}")
            luck = [0.6 * one + 0.4 * draw.random() for one in hard]
            limit = sorted(luck)[max(0, round(share * len(luck)) - 1)]
            wrong = [draw.choice([one for one in labels if one != row["label"]]) for row in tests]
            answers[tier].append(
                [row["label"] if one <= limit else other for row, one, other in zip(tests, luck, wrong, strict=True)]
            )
    return answers


def holding(tier: str, part: str) -> Holding:
    """A plausible owner of one part of a tier's rung."""
    model = ("all-MiniLM-L6-v2@1", "apache-2.0")
    known: dict[tuple[str, str], Holding] = {
        ("retrieval", "index"): Holding("own", notes=("its vectors were made by all-MiniLM-L6-v2@1",)),
        ("prompt", "prompt"): Holding("own"),
        ("tune", "kernel"): Holding("borrowed", *model),
        ("tune", "weights"): Holding("own", *model, notes=("trained here on a borrowed kernel",)),
        ("pretrain", "kernel"): Holding("own", notes=("pretrained here from nothing",)),
        ("pretrain", "weights"): Holding("own"),
        ("baseline", "weights"): Holding("own"),
    }
    if (tier, part) in known:
        return known[tier, part]
    if part in ("kernel", "weights") and tier in ("relay", "prompt", "retrieval"):
        return Holding("called", "http://127.0.0.1/v1#MiniLM", None)
    if part == "data" and tier != "relay":
        return Holding("borrowed", "data:desk", "CC BY 4.0")
    return Holding("none")


def rows_of(language: str = "en", *, priced: bool = True) -> list[Row]:
    """The six tiers as they are before they are compared."""
    column = ("en", "zh").index(language)
    rows = []
    for number, tier in enumerate(RIGHT):
        facts = dict(_FACTS[tier])
        if not priced or tier == "relay":
            facts |= {"cost_per_1k": None}
        rows.append(
            Row(
                number,
                tier,
                _SOLVERS[tier][column],
                **facts,
                cost_basis="unknown" if facts["cost_per_1k"] is None else "machine",
                peak_memory_mib=180.0 + 200 * number,
                trained_parameters=_PARAMETERS[tier],
                latency_examples=100,
                owns={part: holding(tier, part) for part in PARTS},
                lineage=f"desk/{tier}@1",
                problems={"unparsable": 3} if tier == "relay" else {},
                served_by=("MiniLM-L6",) if tier == "relay" else (),
            )
        )
    return rows


def result_of(
    rows: list[Row],
    tests: list[dict[str, Any]],
    answers: Mapping[str, list[list[Any]]],
    language: str = "en",
    *,
    margin: float = 0.0,
) -> LadderResult:
    """The comparison of made-up answers as a whole result."""
    quality = Quality("classify", "accuracy", language)
    compared = compare(rows, quality, tests, answers)
    return LadderResult(
        task="desk" if language == "en" else "客服意图",
        metric="accuracy",
        kind="classify",
        language=language,
        machine={"processor": "A processor", "cores": 2, "memory_mib": 7950, "device": "cpu"},
        rows=compared,
        recommended=recommend(compared, Asked("accuracy", language, "USD", margin)),
        test_examples=len(tests),
        prices=Prices(machine_hour=1.0),
        between=between(compared, quality, tests, answers, language),
        data={"train_rows": 1800, "valid_rows": 200, "test_rows": len(tests), "train_in_test": 3, "test_duplicates": 0},
        spent={"money": 0.0, "tokens": 41_200, "requests": 400, "unpriced": 400, "uncounted": 0},
        created="2026-01-02T03:04:05+00:00",
    )
