"""The null of the audit's tokenizer stage: tokenizers trained independently on corpora that share most of their text.

    python benchmarks/audit_tokenizers.py [--data ../shared/data] [--members 16] [--only bpe] [--check-only]

A family is a set of tokenizers of one algorithm whose corpora all share the same part of their text and have the rest
for themselves, so every pair of the family has that overlap. The families of the table
(`lifecycle/audit/tokenizers/null.json`, numbers only; nine tenths of the text shared) read other texts under other
seeds than those that judge it. Of these the error rates are printed: of pairs, and of tokenizers drawn with
replacement (a pair shares its tokenizers with other pairs). One to two minutes of one core.
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
from nacre.lifecycle.audit.tokenizers.similarity import Similarity, neighbours, similarity
from nacre.lifecycle.audit.tokenizers.stage import decide
from nacre.lifecycle.audit.tokenizers.vocabulary import Script, Vocabulary

Pair = tuple[int, int, Similarity]  # two members of a family, by number

TABLE = Path(null.__file__).with_name("null.json")
# Texts by part: the table's families and those that judge it read different books.
TEXTS = {
    "table": {"en": ["pretrain-en-books"], "zh": ["pretrain-zh-novels"]},
    "unseen": {"en": ["pretrain-en-shakespeare", "sum-en-scitldr"], "zh": ["pretrain-zh-poetry", "qa-zh-cmrc2018"]},
}
SCRIPTS: dict[str, tuple[Script, ...]] = {
    "bpe": ("en", "mixed", "zh"),
    "wordpiece": ("en",),  # takes Chinese by characters and learns none of it: beside English nothing changes
    "unigram": ("en", "mixed", "zh"),
}
SIZES = {"bpe": (1200, 2400), "wordpiece": (1500, 3000), "unigram": (4000, 5000)}
STYLES = {"bpe": "gpt", "wordpiece": "bert", "unigram": "t5"}
COVERAGE = {"table": 0.995, "unseen": 0.97}  # the poems have more characters than a small Unigram has room for
CHUNK = 600  # characters
CORPUS = {"bpe": 100, "wordpiece": 100, "unigram": 60}  # chunks
# Judged at the overlap of the table and beyond it.
JUDGED = {null.OVERLAP: 8, "0.99": 4}  # overlap -> tokenizers of a family


@dataclass(frozen=True)
class Family:
    part: str
    algorithm: str
    overlap: str
    language: Script
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


def families(part: str, overlap: str, algorithms: Sequence[str]) -> Iterator[Family]:
    """One family for each algorithm and script."""
    for algorithm in algorithms:
        for script in SCRIPTS[algorithm]:
            yield Family(part, algorithm, overlap, script, 0)


def text_of(pools: dict[tuple[str, str], list[str]], family: Family) -> list[str]:
    """The chunks a family draws from; `mixed` takes one of each script in turn."""
    if family.language != "mixed":
        return pools[family.part, family.language]
    both = zip(pools[family.part, "en"], pools[family.part, "zh"], strict=False)
    return [chunk for pair in both for chunk in pair]


def largest_eighth(trained: Sequence[Vocabulary]) -> float:
    """The largest share of falling links kept in any eighth of any pair's order: what MOST_KEPT must exceed."""
    most = 0.0
    for one, other in itertools.combinations(trained, 2):
        small, large = sorted((one, other), key=lambda side: len(side.learned))
        falls = [link.is_kept for link in neighbours(small, large) if link.falls]
        width = len(falls) // 8
        if width >= null.LEAST_FALLING // 2:
            most = max(most, *(sum(falls[i * width : (i + 1) * width]) / width for i in range(8)))
    return round(most, 4)


def table(pools: dict[tuple[str, str], list[str]], count: int, algorithms: Sequence[str]) -> dict[str, Any]:
    """Null statistics of every cell, as they are shipped; rows of other algorithms stay as they are."""
    whole = len(algorithms) == len(SIZES)
    before = {"null": {}, "largest_eighth": {}} if whole else json.loads(TABLE.read_text(encoding="utf-8"))
    cells: dict[str, Any] = {**before["null"], **{algorithm: {} for algorithm in algorithms}}
    eighths = before["largest_eighth"]
    for family in families("table", null.OVERLAP, algorithms):
        began = time.process_time()
        trained, pairs = measure(family, text_of(pools, family), count)
        cells[family.algorithm][family.language] = {
            name: [round(getattr(found, name), 4) for _, _, found in pairs] for name in null.DECIDING
        }
        eighths[f"{family.algorithm} {family.language}"] = largest_eighth(trained)
        report(family, pairs, began)
        print(f"    scripts {sorted({one.script for one in trained})}, largest eighth {eighths}", flush=True)
    return {
        "made_by": "benchmarks/audit_tokenizers.py",
        "overlap": null.OVERLAP,
        "texts": TEXTS["table"],
        "sizes": SIZES,
        "chunks": CORPUS,
        "characters_per_chunk": CHUNK,
        "members_per_family": count,
        "largest_eighth": eighths,
        "null": cells,
    }


def check(pools: dict[tuple[str, str], list[str]], algorithms: Sequence[str]) -> list[dict[str, Any]]:
    """Verdicts on families that the table has not seen. DERIVED and IDENTICAL are false; INCONCLUSIVE is a failure to
    say that a common corpus explains it, but right beyond the overlap of the table."""
    rows = []
    for family in itertools.chain.from_iterable(families("unseen", overlap, algorithms) for overlap in JUDGED):
        began, count = time.process_time(), JUDGED[family.overlap]
        trained, pairs = measure(family, text_of(pools, family), count)
        report(family, pairs, began)
        verdicts = {(i, j): decide(trained[i], trained[j], found).verdict for i, j, found in pairs}
        for word in ("DERIVED", "INCONCLUSIVE", "IDENTICAL"):
            wrong = {pair for pair, verdict in verdicts.items() if verdict == word}
            counts = {"verdict": word, "wrong": len(wrong), "pairs": len(pairs), "upper": upper(wrong, count)}
            rows.append({**vars(family), **counts})
        told = {word: sum(v == word for v in verdicts.values()) for word in sorted(set(verdicts.values()))}
        print(f"    {told}, largest eighth {largest_eighth(trained)}", flush=True)
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
        for name in (*null.DECIDING, "order_late", "kept", "tau", "falling")
    }
    shown = ", ".join(f"{name} {value:.3f}" for name, value in most.items())
    print(f"{family}: {len(pairs)} pairs, largest {shown}; {time.process_time() - began:.0f} s CPU", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--members", type=int, default=16, help="tokenizers of a family of the table")
    parser.add_argument("--check-only", action="store_true", help="judge by the table that is there")
    parser.add_argument("--only", choices=list(SIZES), help="one algorithm; the table's other rows stay")
    args = parser.parse_args()
    algorithms = [args.only] if args.only else list(SIZES)
    pools = {
        (part, language): chunks_of(args.data, names)
        for part, texts in TEXTS.items()
        for language, names in texts.items()
    }
    if not args.check_only:
        made = table(pools, args.members, algorithms)
        TABLE.write_text(json.dumps(made, separators=(",", ":")) + "\n", encoding="utf-8")
    taken = record.machine(["tokenizers"])
    record.append("audit_tokenizers", [{**row, **taken} for row in check(pools, algorithms)])


if __name__ == "__main__":
    main()
