"""What a rung or a classifier says to plain texts, behind one small protocol. Both work in their model's thread.

The tiers stand beside this package: they are opened by name, as the catalogue of stages opens them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from nacre.engine.protocol import Usage
from nacre.engine.room import EngineRoom
from nacre.errors import CheckpointError
from nacre.lazy import named
from nacre.lineage.digest import digest_folder

Kind = Literal["classify", "tag", "generate", "rank"]
_FIELD: Mapping[Kind, str] = {"classify": "text", "generate": "source", "rank": "query"}


@dataclass(frozen=True)
class Said:
    """An answer: `value` is a label, a text or ranked ids; None with a `problem` where there is none.

    `scores`: label or id -> score, the best first.
    """

    value: Any
    problem: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    citations: tuple[Mapping[str, Any], ...] = ()
    usage: Usage = field(default_factory=Usage)


class Solver(Protocol):
    """What answers texts. `labels` are the classes there are."""

    @property
    def kind(self) -> Kind: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def title(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def answer(self, texts: Sequence[str]) -> list[Said]: ...

    def close(self) -> None: ...


class RungSolver:
    """A rung of a ladder. Raises CheckpointError for a tagger: no route of the gateway has its answers' shape."""

    def __init__(self, folder: Path, device: str, title: str) -> None:
        manifest = named("nacre.tiers.rung:read_manifest")(folder)
        if manifest.kind == "tag":
            raise CheckpointError(
                f"{folder} tags words, and no route of the gateway gives tags", remedy="use `nacre predict`"
            )
        self.kind: Kind = manifest.kind
        self.labels: tuple[str, ...] = tuple(manifest.labels)
        self.title, self.identity = title, f"rung/1:{digest_folder(folder)}"
        self._rung = named("nacre.tiers.rung:open_rung")(folder, EngineRoom(device=device, through_http=False))

    def answer(self, texts: Sequence[str]) -> list[Said]:
        """One answer per text, in order."""
        rows = [{"id": str(number), _FIELD[self.kind]: text} for number, text in enumerate(texts, 1)]
        tokens = self._tokens(texts)
        said = []
        for one, count in zip(self._rung.answer(rows), tokens, strict=True):
            scores = dict(sorted(one.scores.items(), key=lambda item: (-item[1], item[0])))
            usage = one.usage if one.usage.requests or count is None else Usage(count, 0, 1, "tokenizer")
            cited = tuple(asdict(citation) for citation in one.citations)
            said.append(Said(one.value, one.problem, scores, cited, usage))
        return said

    def _tokens(self, texts: Sequence[str]) -> list[int | None]:
        """What a model in the rung itself reads of each text; None where there is no tokenizer to count with."""
        tokenizer, limits = getattr(self._rung, "tokenizer", None), getattr(self._rung, "limits", None)
        if tokenizer is None or limits is None or self.kind == "generate":
            return [None] * len(texts)
        return [min(len(ids), limits.context) for ids in tokenizer.encode_batch(texts)]

    def close(self) -> None:
        """Ends what opening started."""
        self._rung.close()


class ClassifierSolver:
    """A checkpoint with a classification head."""

    kind: Kind = "classify"

    def __init__(self, folder: Path, device: str, title: str, batch: int) -> None:
        from nacre.lifecycle.evaluate.predict import open_model
        from nacre.lifecycle.evaluate.testset import recorded_objective
        from nacre.progress import Silent

        self.model = open_model(folder, None, device, batch, Silent())
        self._recorded = recorded_objective(folder)
        self.labels = tuple(self.model.kernel.config.labels)
        self._tokenizer = self.model.words  # raises where there is none
        self.title, self.identity = title, f"classifier/1:{digest_folder(folder)}"

    def answer(self, texts: Sequence[str]) -> list[Said]:
        """One answer per text, in order, with the probability of every class."""
        from nacre.lifecycle.evaluate.answer import answer, context_of

        found = answer(self.model, texts, self._recorded, top=len(self.labels)).answers
        room = context_of(self.model, self._recorded)
        counts = [min(len(ids), room) for ids in self._tokenizer.encode_batch(texts)]
        return [
            Said(
                one["label"],
                scores={item["label"]: item["probability"] for item in one["top"]},
                usage=Usage(count, 0, 1, "tokenizer"),
            )
            for one, count in zip(found, counts, strict=True)
        ]

    def adapted(self, folder: Path, adapter: str) -> ClassifierSolver:
        """The same kernel as the solver of an adapter, which acts whenever it is asked. `folder`: what was tuned.

        Raises CheckpointError for other classes than the base's.
        """
        from nacre.kernel import hf
        from nacre.lifecycle.evaluate.testset import recorded_objective

        own = hf.load_config(folder).labels if (folder / "config.json").is_file() else self.labels
        if tuple(own) != self.labels:
            raise CheckpointError(
                f"it tells apart {', '.join(own)}, its base {', '.join(self.labels)}",
                remedy="serve it as a model of its own: local: {ref: ...}",
            )
        other = copy(self)
        other._recorded = recorded_objective(folder) or self._recorded
        other.title, other.identity = str(folder), f"{self.identity}+{adapter}"
        return other

    def close(self) -> None:
        """Nothing was started."""
