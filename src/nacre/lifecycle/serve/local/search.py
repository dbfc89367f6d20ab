"""An index behind the gateway: `/v1/search`, with where every passage stands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from nacre.engine.room import EngineRoom
from nacre.lazy import named
from nacre.lifecycle.serve.config import LocalConfig
from nacre.lifecycle.serve.contract import Call, Refusal, Reply, Usage
from nacre.lifecycle.serve.local.batcher import Batcher
from nacre.lifecycle.serve.local.model import LocalModel, Queued
from nacre.lifecycle.serve.local.reading import count_of, only_known, texts_of
from nacre.lifecycle.serve.local.replying import json_reply
from nacre.lineage.digest import digest_folder
from nacre.recipe.machine import resolve_device

Filters = tuple[tuple[str, tuple[str, ...]], ...]
_MOST = 100  # passages of an answer
_MOST_FILTERS = 32


class Hit(Protocol):
    """A passage that was found, as `tiers/retrieval/index.py` gives it."""

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class _Query:
    text: str
    limit: int
    mode: str
    filters: Filters

    @property
    def group(self) -> tuple[int, str, Filters]:
        """What queries must share to be searched together."""
        return (self.limit, self.mode, self.filters)


class SearchModel(LocalModel):
    """An index; `engine` is the folder of the model that embeds its queries, where it is not searched by words."""

    def __init__(
        self, name: str, folder: Path, config: LocalConfig, queued: Queued | None = None, engine: Path | None = None
    ) -> None:
        super().__init__(name, config, queued)
        self.folder, self.engine = folder, engine
        self._stack = ExitStack()
        self._index: Any = None
        self._batches: Batcher[_Query, list[Hit]] | None = None

    def _open(self) -> None:
        room = EngineRoom(device=resolve_device(self.config.device), through_http=False)
        try:
            engine = None if self.engine is None else self._stack.enter_context(room.open(self.engine))
            self._index = self._stack.enter_context(named("nacre.tiers.retrieval.index:Index")(self.folder, engine))
            self._index.resolve("auto")  # raises where the engine is missing that it was made with
        except BaseException:
            self._stack.close()
            raise
        self.identity = f"index/1:{digest_folder(self.folder)}"
        self._abilities = frozenset({"search"})

    def _begin(self) -> None:
        self._batches = Batcher(self.name, self._found, self.worker, self.bounds, self.watch("queries"))
        self._batches.start()

    async def _answer(self, call: Call) -> Reply:
        if call.route != "search":
            raise Refusal(400, f"{self.name} is an index: it answers /v1/search", param="model")
        assert self._batches is not None  # it has started
        body = only_known(call.body, frozenset({"model", "query", "limit", "filter", "mode"}))
        mode = body.get("mode", "auto")
        if mode not in ("auto", "lexical", "dense", "hybrid"):
            raise Refusal(400, "mode is auto, lexical, dense or hybrid", param="mode")
        text = texts_of(body.get("query"), "query")[0]
        query = _Query(text, count_of(body, "limit", 10, _MOST), mode, _filters(body.get("filter")))
        hits = (await self.in_time(self._batches.ask([query], query.group), call))[0]
        data = [{"index": index, **hit.to_dict()} for index, hit in enumerate(hits)]
        # Queries are read by an engine whose count is not told per query: unknown, not zero.
        reply = {"object": "list", "data": data, "model": self.name, "usage": {"prompt_tokens": None}}
        return json_reply(self.name, reply, Usage(), self.folder.name)

    def _found(self, queries: Sequence[_Query]) -> list[list[Hit]]:
        """All of one group, in the model's thread."""
        first = queries[0]
        filters: Mapping[str, Sequence[str]] | None = dict(first.filters) or None
        found: list[list[Hit]] = self._index.search_many(
            [one.text for one in queries], first.limit, first.mode, filters
        )
        return found

    async def _end(self) -> None:
        if self._batches is not None:
            await self._batches.close()

    def _shut(self) -> None:
        self._stack.close()


def _filters(value: Any) -> Filters:
    """`filter`: field -> value, or a list of values of which one must hold."""
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > _MOST_FILTERS:
        raise Refusal(400, f"filter is an object of at most {_MOST_FILTERS} fields", param="filter")
    filters = []
    for name, wanted in sorted(value.items()):
        values = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(values, list) or not values or not all(isinstance(one, str) for one in values):
            raise Refusal(400, "each field of filter has a text, or a list of texts", param="filter")
        filters.append((name, tuple(values)))
    return tuple(filters)
