"""Makes a relay: finds the way that the engine allows, computes the vectors it needs, and asks one real question."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nacre.data.write import write_jsonl
from nacre.engine.protocol import Engine, Unsupported
from nacre.progress import Scalar
from nacre.recipe.config import plain
from nacre.recipe.stage import Work
from nacre.tiers.asking.kept import ASKED_FIELDS, keep_task
from nacre.tiers.asking.vectors import NamedVectors, corpus_vectors, label_vectors
from nacre.tiers.asking.wording import label_texts
from nacre.tiers.relay.rung import CORPUS_FILE, VECTORS_FILE, Relay
from nacre.tiers.relay.stages import RelayConfig
from nacre.tiers.relay.ways import in_words, way_for
from nacre.tiers.rung import ENGINE_FOLDER, Manifest, keep_engine, write_manifest
from nacre.tiers.task import Row, Task, load

OWNS = {"kernel": "called", "weights": "called", "data": "none", "prompt": "none", "index": "none"}


def relay_solve(config: RelayConfig, work: Work) -> Mapping[str, Scalar]:
    """Writes the rung. Raises EngineError for an engine out of reach, Unsupported for one that cannot do the task."""
    task = load(work.inputs["task"])
    keep_engine(work.inputs["engine"], work.out)
    with work.engines.open(work.out / ENGINE_FOLDER, remote=True) as engine:
        way = way_for(config.way, task.kind, engine)
        config = replace(config, way=way)
        named = _vectors(engine, task, config)
        first = Relay(task, config, named).answer(engine, [_question(task)])[0]
        name = engine.name
    if named is not None:
        named.save(work.out / VECTORS_FILE)
    if task.kind == "rank" and way == "chat":
        write_jsonl(work.out / CORPUS_FILE, ({"id": row["id"], "text": row["text"]} for row in task.corpus))
    write_manifest(work.out, _manifest(task, config, f"{name}: {in_words(way, task.kind)}"))
    figures: dict[str, Scalar] = {"way": way, "engine": name, "served_by": first.served_by}
    if first.problem is not None:
        figures["first_answer"] = first.problem
    if named is not None:
        figures |= {"vectors": len(named.names), "truncated_texts": named.truncated}
    return figures


def _manifest(task: Task, config: RelayConfig, solver: str) -> Manifest:
    return Manifest.of(
        task,
        "relay",
        solver,
        owns=OWNS,
        how={"task": keep_task(task), "config": plain(config)},
    )


def _vectors(engine: Engine, task: Task, config: RelayConfig) -> NamedVectors | None:
    """Vectors of the labels, or of the passages; None where the way needs none."""
    if task.kind == "classify":
        return label_vectors(engine, label_texts(task), config.batch) if config.way == "similarity" else None
    if task.kind != "rank":
        return None
    if config.way == "similarity" or (engine.capabilities.embed and len(task.corpus) > config.candidates):
        return corpus_vectors(engine, task.corpus, config.batch)
    if len(task.corpus) > config.candidates:
        raise Unsupported(
            f"{engine.name} does not embed, and cannot read a corpus of {len(task.corpus):,} passages at once "
            f"(candidates: {config.candidates})",
            remedy="give an engine that embeds; the tier retrieval finds candidates by full text",
        )
    return None


def _question(task: Task) -> Row:
    """A real question: the first validation or training row, else the instruction itself."""
    rows = task.valid or task.train
    if rows:
        return rows[0]
    text = task.about or task.name
    return {ASKED_FIELDS[task.kind]: [text] if task.kind == "tag" else text}
