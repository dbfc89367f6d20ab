"""What calls cost. An unknown price is unknown (None), never zero."""

from __future__ import annotations

from dataclasses import dataclass

from nacre.engine.protocol import Usage
from nacre.errors import ConfigError


@dataclass(frozen=True)
class Prices:
    """Money per million tokens read and written, per million tokens embedded, and per hour of the machine itself.

    None is unknown. `machine_hour` prices everything that runs here, by its seconds.
    """

    input_per_million: float | None = None
    output_per_million: float | None = None
    embedding_per_million: float | None = None
    machine_hour: float | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name in ("input_per_million", "output_per_million", "embedding_per_million", "machine_hour"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"the price {name} is {value}", remedy="give 0 or more, or leave it out for unknown")

    def of_calls(self, usage: Usage, *, embedding: bool = False) -> float | None:
        """Money for what an upstream counted; 0 for cached answers; None where a price or a count is unknown."""
        if usage.cached or not usage.requests:
            return 0.0
        if embedding:
            return _product(usage.prompt_tokens, self.embedding_per_million)
        read, written = (
            _product(usage.prompt_tokens, self.input_per_million),
            _product(usage.completion_tokens, self.output_per_million),
        )
        return None if read is None or written is None else read + written

    def of_seconds(self, seconds: float) -> float | None:
        """Money for time on this machine."""
        return None if self.machine_hour is None else seconds / 3600 * self.machine_hour


def _product(tokens: int | None, per_million: float | None) -> float | None:
    return None if tokens is None or per_million is None else tokens * per_million / 1e6
