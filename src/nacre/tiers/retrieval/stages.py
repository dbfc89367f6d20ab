"""Stages of tier 3: an index of documents, and a task solved by looking up. Light: the work is imported inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nacre.errors import ConfigError
from nacre.progress import Scalar
from nacre.recipe.stage import Input, Work, stage
from nacre.tiers.retrieval.chunk import ChunkConfig
from nacre.tiers.retrieval.document import IngestConfig


@dataclass(frozen=True)
class IndexConfig:
    """What is read, how it is cut; `metric` chooses the mode where validation queries are given."""

    ingest: IngestConfig = field(default_factory=IngestConfig)
    chunk: ChunkConfig = field(default_factory=ChunkConfig)
    metric: str = "ndcg@10"


@stage(
    "retrieval.index",
    produces="index",
    inputs={
        "documents": Input("any", "indexes"),
        "engine": Input("any", "calls", optional=True),
        "queries": Input("any", "made_from", optional=True),
        "previous": Input("index", "made_from", optional=True),
    },
)
def index(config: IndexConfig, work: Work) -> Mapping[str, Scalar]:
    """Documents as passages to search, by words and, with an engine, by meaning; the unchanged is carried over."""
    from nacre.tiers.retrieval.worker import retrieval_index

    return retrieval_index(config, work)


@dataclass(frozen=True)
class RetrievalConfig:
    """How a task is solved by looking up; what has several values is chosen on validation rows.

    `neighbours`: how many vote, to classify. `demonstrations`: how many nearest training rows an engine that writes is
    shown; none to do without. `trials`: validation rows that an engine is asked about, for they cost. `precisions` that
    an entry of a gazetteer needs. `refit`: after choosing, validation rows are looked up as well. `chunk`: how passages
    of a corpus are cut. `rerank`: passages that an engine that writes orders anew, where that helps; 0 for none.
    """

    neighbours: tuple[int, ...] = (1, 3, 5, 10, 20)
    demonstrations: tuple[int, ...] = (5, 10)
    trials: int = 100
    precisions: tuple[float, ...] = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
    refit: bool = True
    chunk: ChunkConfig = field(default_factory=lambda: ChunkConfig(size=400, overlap=50, unit="words"))
    rerank: int = 0

    def __post_init__(self) -> None:
        for name in ("neighbours", "demonstrations"):
            values = getattr(self, name)
            if any(value < 1 for value in values) or (name == "neighbours" and not values):
                raise ConfigError(f"{name} are {values}", remedy="give numbers of 1 or more")
        if not self.precisions or not all(0 <= value <= 1 for value in self.precisions):
            raise ConfigError(f"precisions are {self.precisions}", remedy="give shares from 0 to 1")
        if self.trials < 1 or self.rerank < 0:
            raise ConfigError(f"trials {self.trials}, rerank {self.rerank}", remedy="trials from 1, rerank from 0")


@stage(
    "retrieval.solve",
    produces="rung",
    inputs={"task": Input("dataset", "indexes"), "engine": Input("any", "calls", optional=True)},
    revision=2,
)
def solve(config: RetrievalConfig, work: Work) -> Mapping[str, Scalar]:
    """A task solved by looking up: neighbours vote, or stand as examples, or are the answer; each answer cites them."""
    from nacre.tiers.retrieval.worker import retrieval_solve

    return retrieval_solve(config, work)
