"""Duplicates and splits: traps 51 and 52."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest

from nacre.data.dedup import DedupConfig, dedup, find_clusters, keep_by_rank
from nacre.data.minhash import Signer, bands, near_pairs
from nacre.data.normal import normal
from nacre.data.report import DropReport
from nacre.data.rows import Row, canonical
from nacre.data.split import SplitConfig, Stratification, split, split_of
from nacre.errors import ConfigError, DataError

WORDS = ["parcel", "courier", "refund", "invoice", "street", "window", "coupon", "member", "battery", "kettle", "lamp"]
HAN = "退货快递发票地址会员电池水壶台灯破损延误蓝色优惠付款订单客服取消修改查询保修换新门店配送"


def texts(seed: int, n: int) -> list[str]:
    rng = random.Random(seed)
    half = [" ".join(rng.choices(WORDS, k=30)) for _ in range(n // 2)]
    return half + ["".join(rng.choices(HAN, k=50)) for _ in range(n - n // 2)]


def near_copy(text: str) -> str:
    """The text with something appended: far above the threshold in shingles."""
    return text + ("吧" if text[0] in HAN else " please")


def corpus(seed: int = 0, n: int = 60) -> list[Row]:
    """Rows with exact, normalised and near duplicates, shuffled."""
    own = texts(seed, n)
    copies = [near_copy(text) for text in own[::3]] + [text.upper() + " " for text in own[::4]] + own[::5]
    rows: list[Row] = [{"text": text} for text in own + copies]
    random.Random(seed).shuffle(rows)
    return rows


def as_set(rows: Iterable[Row]) -> set[str]:
    return {canonical(row) for row in rows}


def test_trap_51_adding_data_never_moves_a_row() -> None:
    config = SplitConfig({"train": 0.6, "valid": 0.2, "test": 0.2}, salt="a")
    rows = [{"text": text} for text in texts(1, 400)]
    before = {row["text"]: name for name, row in split(rows, config)}
    more = [*({"text": text} for text in texts(2, 400)), *rows]
    random.Random(3).shuffle(more)
    after = {row["text"]: name for name, row in split(more, config)}
    assert all(after[text] == name for text, name in before.items())
    counts = [sum(name == wanted for name in before.values()) / len(before) for wanted in ("train", "valid", "test")]
    assert counts == pytest.approx([0.6, 0.2, 0.2], abs=0.08)


def test_trap_51_the_split_is_the_same_in_every_process() -> None:
    code = "from nacre.data.split import *; print([split_of(str(n), SplitConfig(salt='x')) for n in range(50)])"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{[split_of(str(n), SplitConfig(salt='x')) for n in range(50)]}\n"}


def test_trap_51_more_validation_takes_nothing_from_test() -> None:
    small, large = (
        SplitConfig({"train": 0.8, "valid": 0.1, "test": 0.1}),
        SplitConfig({"train": 0.5, "valid": 0.4, "test": 0.1}),
    )
    keys = texts(4, 300)
    assert {k for k in keys if split_of(k, small) == "test"} == {k for k in keys if split_of(k, large) == "test"}
    assert {k for k in keys if split_of(k, small) == "valid"} <= {k for k in keys if split_of(k, large) == "valid"}
    assert {k for k in keys if split_of(k, small) != split_of(k, SplitConfig(small.ratios, salt="b"))}


@pytest.mark.parametrize("method", ["exact", "near"])
def test_trap_52_survivors_do_not_depend_on_the_order(method: str) -> None:
    config = DedupConfig(method)  # type: ignore[arg-type]
    rows = corpus()
    survivors = as_set(dedup(rows, config, DropReport()))
    assert 60 <= len(survivors) < len(rows)
    for seed in range(5):
        random.Random(seed).shuffle(rows)
        assert as_set(dedup(rows, config, DropReport())) == survivors


def test_trap_52_near_duplicates_do_not_straddle_the_split() -> None:
    config = SplitConfig({"train": 0.5, "valid": 0.25, "test": 0.25})
    rows = corpus(5, 200)
    where: dict[str, set[str]] = {}
    originals = {normal(near_copy(text)): normal(text) for text in texts(5, 200)}
    # Kept together: all copies of a text are in one split.
    clusters = find_clusters(rows, DedupConfig("near"))
    for name, row in split(rows, config, clusters.keys()):
        key = normal(row["text"])
        where.setdefault(originals.get(key, key), set()).add(name)
    assert all(len(names) == 1 for names in where.values())
    # Removed: one of them is left.
    kept = [normal(row["text"]) for row in dedup(rows, DedupConfig("near"), DropReport())]
    left = [originals.get(key, key) for key in kept]
    assert len(left) == len(set(left)) == 200


def test_trap_52_exact_duplicates_do_not_straddle_the_split_without_dedup() -> None:
    config = SplitConfig({"train": 0.5, "valid": 0.25, "test": 0.25})
    for text in texts(6, 50):
        assert len({name for name, _ in split([{"text": text}, {"text": f" {text.upper()} "}], config)}) == 1


def test_the_report_counts_clusters_and_labels_that_differ() -> None:
    rows = [{"text": "好吃", "label": "pos"}, {"text": " 好吃 ", "label": "neg"}, {"text": "难吃", "label": "neg"}]
    report = DropReport()
    assert len(list(dedup(iter(rows), DedupConfig("exact"), report))) == 2
    step = report.step("dedup")
    assert step.dropped["duplicate"].count == 1
    assert step.noted["clusters of duplicates"].count == 1
    assert step.noted["duplicates with different labels"].count == 1


def test_near_duplicates_are_found_in_both_languages_and_others_are_not() -> None:
    long_zh, long_en = texts(7, 2)[1], texts(7, 2)[0]
    rows = [
        {"text": t}
        for t in (long_zh, near_copy(long_zh), long_en, near_copy(long_en), *texts(8, 20), "！！", "？？", "好", "坏")
    ]
    clusters = find_clusters(rows, DedupConfig("near"))
    assert sorted(clusters.sizes.tolist())[-3:] == [1, 2, 2]


def test_bands_find_pairs_at_the_threshold() -> None:
    for threshold in (0.5, 0.8, 0.95):
        n_bands, rows = bands(128, threshold)
        assert n_bands * rows <= 128
        assert 1 - (1 - threshold**rows) ** n_bands >= 0.99


def test_the_signature_estimates_jaccard_similarity() -> None:
    words = [f"w{n}" for n in range(400)]
    signer = Signer(512, 1)
    signer.add(" ".join(words[:300]))
    signer.add(" ".join(words[100:]))
    first, second = signer.signatures()
    assert (first == second).mean() == pytest.approx(200 / 400, abs=0.08)


def test_all_pairs_of_a_large_bucket_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacre.data.minhash.BLOCK", 16)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1 << 32, 128, dtype=np.uint32)
    signatures = np.repeat(base[None], 30, axis=0)
    for row in range(30):
        signatures[row, 127 - row % 4] = row  # pairwise alike, none equal
    pairs = near_pairs(signatures, 0.9)
    parent = {n: n for n in range(30)}
    for a, b in pairs.tolist():
        old, new = parent[a], parent[b]
        parent = {node: new if root == old else root for node, root in parent.items()}
    assert len(set(parent.values())) == 1


@pytest.mark.parametrize("seed", range(12))  # which of the three lies between the others is left to their hashes
def test_trap_52_two_rows_meet_although_a_third_lies_between_them(seed: int) -> None:
    """Rows 0 and 2 are alike but share one band only, with a row that is like neither."""
    n_bands, length = bands(128, 0.8)
    rng = np.random.default_rng(seed)
    signatures = rng.integers(0, 1 << 32, (3, 128), dtype=np.uint32)
    signatures[2] = signatures[0]
    signatures[2, [band * length for band in range(1, n_bands)]] += 1
    signatures[1, :length] = signatures[0, :length]
    assert {tuple(sorted(pair)) for pair in near_pairs(signatures, 0.8).tolist()} == {(0, 2)}


def test_overlapping_splits_lose_train_rows_never_test_rows() -> None:
    rows = [{"text": t} for t in ("a b c", "A b c", "d", "d", "e", "e", "f", "f ")]
    ranks = np.array([0, 2, 0, 1, 1, 2, 0, 0], dtype=np.int8)
    report = DropReport()
    kept = list(keep_by_rank(rows, ranks, find_clusters(rows, DedupConfig("exact")), report))
    assert [row["text"] for row in kept][:3] == ["A b c", "d", "e"]
    assert len(kept) == 4
    assert {reason: event.count for reason, event in report.step("overlap").dropped.items()} == {
        "train row that is also in test": 1,
        "train row that is also in valid": 1,
        "valid row that is also in test": 1,
        "duplicate within train": 1,
    }
    report = DropReport()
    assert (
        len(
            list(
                keep_by_rank(rows, ranks, find_clusters(rows, DedupConfig("exact")), report, within=False, across=False)
            )
        )
        == 8
    )
    assert sum(event.count for event in report.step("overlap").noted.values()) == 3


def test_a_group_stays_together() -> None:
    config = SplitConfig({"train": 0.5, "test": 0.5}, group="author")
    rows = [{"text": str(n), "author": n % 20} for n in range(200)]
    where: dict[int, set[str]] = {}
    for name, row in split(rows, config):
        where.setdefault(row["author"], set()).add(name)
    assert all(len(names) == 1 for names in where.values())
    with pytest.raises(DataError, match="'author'"):
        list(split([{"text": "x"}], config))


def test_stratification_counts_and_names_what_training_lacks() -> None:
    found = Stratification()
    for name, label, count in (("train", "a", 8), ("train", "b", 2), ("test", "a", 1), ("test", "c", 1)):
        for _ in range(count):
            found.add(name, label)
    assert found.unseen_in_training() == ["c"]
    assert found.largest_deviation() == pytest.approx(0.5 - 1 / 12)
    json.dumps(found.to_dict())


@pytest.mark.parametrize("ratios", [{"train": 0.5}, {"train": 1.2, "test": -0.2}, {"train": 0.5, "tset": 0.5}])
def test_wrong_ratios_are_refused(ratios: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        SplitConfig(ratios)


def test_wrong_dedup_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="method"):
        DedupConfig("fuzzy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="threshold"):
        DedupConfig("near", threshold=0.05)
