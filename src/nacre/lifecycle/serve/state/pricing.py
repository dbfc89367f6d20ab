"""What a call costs, by the model that served it. An unknown price or count is unknown (None), never zero."""

from __future__ import annotations

from collections.abc import Mapping

from nacre.engine.prices import Prices
from nacre.engine.protocol import Usage as EngineUsage
from nacre.errors import ConfigError
from nacre.lifecycle.serve.contract import Outcome, Usage

_GUESSED_S = 10.0  # what a call on this machine may take, before it is known
_FREE: tuple[Outcome, ...] = ("refused", "upstream_error")  # no answer was begun: nothing is billed


class PriceList:
    """Prices by the model's configured name; a model that is not listed has no known price.

    Raises ConfigError for two currencies, for their sums would mean nothing.
    """

    def __init__(self, prices: Mapping[str, Prices]) -> None:
        self._prices = dict(prices)
        currencies = sorted({price.currency for price in self._prices.values()})
        if len(currencies) > 1:
            raise ConfigError(f"prices in {' and '.join(currencies)}", remedy="give all prices in one currency")
        self.currency = currencies[0] if currencies else "USD"

    def estimate(self, model: str, prompt: int, completion: int, *, embedding: bool = False) -> float | None:
        """Money to reserve for a call of so many tokens, or of ten seconds where time is paid; None where unknown."""
        prices = self._prices.get(model)
        if prices is not None and prices.machine_hour is not None and not _has_token_price(prices):
            return prices.of_seconds(_GUESSED_S)
        return self._of_tokens(model, Usage(prompt, completion, "tokenizer"), embedding=embedding)

    def money(
        self, model: str, usage: Usage, outcome: Outcome, *, seconds: float, embedding: bool = False,
        cached: bool = False,
    ) -> float | None:  # fmt: skip
        """Money that a finished call cost: by tokens where these have prices, else by seconds of the machine.

        Cached, refused and never begun answers cost nothing. A broken stream costs what was counted of it.
        """
        if cached or outcome in _FREE:
            return 0.0
        prices = self._prices.get(model)
        if prices is None:
            return None
        if prices.machine_hour is not None and not _has_token_price(prices):
            return prices.of_seconds(seconds)
        return self._of_tokens(model, usage, embedding=embedding)

    def _of_tokens(self, model: str, usage: Usage, *, embedding: bool) -> float | None:
        prices = self._prices.get(model)
        if prices is None:
            return None
        counted = EngineUsage(usage.prompt, usage.completion, requests=1, counted_by=usage.counted_by)
        return prices.of_calls(counted, embedding=embedding)


def _has_token_price(prices: Prices) -> bool:
    return any(
        price is not None
        for price in (prices.input_per_million, prices.output_per_million, prices.embedding_per_million)
    )
