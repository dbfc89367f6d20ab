"""The null of the audit's tokenizer stage: tokenizers trained independently on corpora that share a part of their text.

    python benchmarks/audit_tokenizers.py [--data ../shared/data] [--members 16] [--check-only]

A family is a set of tokenizers of one algorithm whose corpora all share the same part of their text and have the rest
for themselves, so every pair of the family has that overlap. Half of the families give the table
(`lifecycle/audit/tokenizers/null.json`, numbers only), the other half, of other seeds and texts, the error rates that
are printed: of pairs, and of tokenizers drawn with replacement (a pair shares its tokenizers with other pairs).
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record
from nacre.data.read import read
from nacre.data.rows import content
from nacre.data.tokenizer import TokenizerConfig, train
from nacre.lifecycle.audit.tokenizers import null
from nacre.lifecycle.audit.tokenizers.formats import load_vocabulary
from nacre.lifecycle.audit.tokenizers.similarity import Similarity, similarity
from nacre.lifecycle.audit.tokenizers.stage import compare_vocabularies
from nacre.lifecycle.audit.tokenizers.vocabulary import Vocabulary

Pair = tuple[int, int, Similarity]  # two members of a family, by number

TABLE = Path(null.__file__).with_name("null.json")
# Texts by part: the table's families and those that judge it read different books.
TEXTS = {
    "table": {"en": ["pretrain-en-books"], "zh": ["pretrain-zh-novels"]},
    "check": {"en": ["pretrain-en-shakespeare", "sum-en-scitldr"], "zh": ["pretrain-zh-poetry", "qa-zh-cmrc2018"]},
}
SIZES = {"bpe": (1200, 2400), "wordpiece": (5000, 6500), "unigram": (4000, 5000)}
STYLES = {"bpe": "gpt", "wordpiece": "bert", "unigram": "t5"}
COVERAGE = {"table": 0.995, "check": 0.97}  # the poems have more characters than a small Unigram has room for
CHUNK = 600  # characters
CORPUS = {"bpe": 300, "wordpiece": 300, "unigram": 200}  # chunks


@dataclass(frozen=True)
class Family:
    part: str
    algorithm: str
    overlap: str
    language: str
    seed: int


def chunks_of(data: Path, names: Sequence[str]) -> list[str]:
    """The texts of the sets, laid end to end and cut into chunks of equal length."""
    chunks = []
    for name in names:
        file = next(path for path in sorted((data / name).iterdir()) if path.name.startswith("train"))
        whole = "\n".join(content(row, ("text",) if "text" in row else ("context",)) for row in read(file))
        chunks += [whole[at : at + CHUNK] for at in range(0, min(len(whole), 6_000_000), CHUNK)]
    return chunks


def members(family: Family, chunks: list[str], count: int, folder: Path) -> Iterator[Vocabulary]:
    """Trains the tokenizers of a family, of two sizes in turn."""
    rng = random.Random(f"{family}")
    pool = list(dict.fromkeys(chunks))
    rng.shuffle(pool)
    size = CORPUS[family.algorithm]
    n_shared = round(float(family.overlap) * size)
    n_own = size - n_shared
    if len(pool) < n_shared + count * n_own:
        raise SystemExit(f"{family}: {len(pool):,} chunks, {n_shared + count * n_own:,} are needed")
    shared, rest = pool[:n_shared], pool[n_shared:]
    for member in range(count):
        corpus = shared + rest[member * n_own : (member + 1) * n_own]
        config = TokenizerConfig(
            algorithm=family.algorithm,  # type: ignore[arg-type]
            vocab_size=SIZES[family.algorithm][member % 2],
            style=STYLES[family.algorithm],  # type: ignore[arg-type]
            character_coverage=COVERAGE[family.part],
            sentinels=0,
        )
        target = folder / f"{member}"
        train(corpus, config, target)
        yield load_vocabulary(target)


def measure(family: Family, chunks: list[str], count: int) -> tuple[list[Vocabulary], list[Pair]]:
    """The tokenizers of a family and what each pair of them has in common."""
    with tempfile.TemporaryDirectory() as folder:
        trained = list(members(family, chunks, count, Path(folder)))
    pairs = itertools.combinations(range(count), 2)
    return trained, [(i, j, similarity(trained[i], trained[j])) for i, j in pairs]


def families(part: str) -> Iterator[Family]:
    """Two families per cell. WordPiece takes Chinese by characters and learns none of it: two English ones."""
    for algorithm, overlap in itertools.product(SIZES, (null.HALF, null.MOST)):
        drawn = (("en", 0), ("en", 1)) if algorithm == "wordpiece" else (("en", 0), ("zh", 0))
        for language, seed in drawn:
            yield Family(part, algorithm, overlap, language, seed)


def table(pools: dict[tuple[str, str], list[str]], count: int) -> dict[str, Any]:
    """Null statistics of every cell, as they are shipped."""
    cells: dict[str, Any] = {algorithm: {} for algorithm in SIZES}
    for family in families("table"):
        began = time.process_time()
        _, pairs = measure(family, pools["table", family.language], count)
        cell = cells[family.algorithm].setdefault(family.overlap, {name: [] for name in null.DECIDING})
        for name in null.DECIDING:
            cell[name] += [round(getattr(found, name), 4) for _, _, found in pairs]
        report(family, pairs, began)
    return {
        "made_by": "benchmarks/audit_tokenizers.py",
        "texts": TEXTS["table"],
        "sizes": SIZES,
        "chunks": CORPUS,
        "characters_per_chunk": CHUNK,
        "members_per_family": count,
        "families": [vars(family) for family in families("table")],
        "null": cells,
    }


def check(pools: dict[tuple[str, str], list[str]], count: int) -> list[dict[str, Any]]:
    """Verdicts on families that the table has not seen: every one of them but NO_EVIDENCE and SAME_DESIGN is false."""
    rows = []
    for family in families("check"):
        began = time.process_time()
        trained, pairs = measure(family, pools["check", family.language], count)
        report(family, pairs, began)
        verdicts = {(i, j): compare_vocabularies(trained[i], trained[j]).verdict for i, j, _ in pairs}
        for word in ("DERIVED", "INCONCLUSIVE", "IDENTICAL"):
            wrong = {pair for pair, verdict in verdicts.items() if verdict == word}
            rows.append(
                {
                    **vars(family),
                    "verdict": word,
                    "wrong": len(wrong),
                    "pairs": len(pairs),
                    "upper": upper(wrong, count),
                }
            )
        print("   ", {word: sum(v == word for v in verdicts.values()) for word in sorted(set(verdicts.values()))})
    return rows


def upper(wrong: set[tuple[int, int]], count: int) -> float:
    """95th percentile of the error rate over tokenizers drawn with replacement; with none wrong, the bound of the
    number of disjoint pairs: 1 - 0.05^(2 / count)."""
    if not wrong:
        return round(1 - 0.05 ** (2 / count), 4)
    rng, rates = random.Random(0), []
    for _ in range(1000):
        drawn = [rng.randrange(count) for _ in range(count)]
        pairs = [(min(a, b), max(a, b)) for a, b in itertools.combinations(drawn, 2) if a != b]
        rates.append(sum(pair in wrong for pair in pairs) / max(1, len(pairs)))
    return round(sorted(rates)[949], 4)


def report(family: Family, pairs: list[Pair], began: float) -> None:
    """One line per family: the largest values, and what it took."""
    most = {
        name: max(getattr(found, name) for _, _, found in pairs)
        for name in (*null.DECIDING, "prefix", "tau", "aligned")
    }
    shown = ", ".join(f"{name} {value:.3f}" for name, value in most.items())
    print(f"{family}: {len(pairs)} pairs, largest {shown}; {time.process_time() - began:.0f} s CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--members", type=int, default=16, help="tokenizers of a family")
    parser.add_argument("--check-only", action="store_true", help="judge by the table that is there")
    args = parser.parse_args()
    pools = {
        (part, language): chunks_of(args.data, names)
        for part, texts in TEXTS.items()
        for language, names in texts.items()
    }
    if not args.check_only:
        TABLE.write_text(json.dumps(table(pools, args.members), separators=(",", ":")) + "\n", encoding="utf-8")
    taken = record.machine(["tokenizers"])
    record.append("audit_tokenizers", [{**row, **taken} for row in check(pools, args.members)])


if __name__ == "__main__":
    main()
