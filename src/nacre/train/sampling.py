"""Class imbalance: weights for the loss, and balanced indexes of the examples of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nacre.errors import ConfigError, DataError
from nacre.train.objectives.config import Balance, Weighting


def class_weights(counts: Sequence[int], how: Weighting, beta: float = 0.999) -> tuple[float, ...] | None:
    """One weight per class from the number of its training rows, or None for `none`.

    `inverse`: proportional to 1 / count. `effective`: to (1 - beta) / (1 - beta^count), the inverse of the effective
    number of rows (Cui et al. 2019, equation 2); beta 0 weighs all alike, beta -> 1 approaches `inverse`.
    Scaled so that the mean over the training *rows* is 1, which keeps the size of the loss. A class without rows
    weighs as if it had one.
    """
    if how == "none":
        return None
    if not counts or max(counts) == 0:
        raise DataError("there are no rows to weigh the classes by", remedy="check that the training rows have labels")
    present = np.maximum(np.array(counts, dtype=np.float64), 1.0)
    if how == "inverse":
        raw = 1.0 / present
    elif how == "effective":
        if not 0 <= beta < 1:
            raise ConfigError(
                f"beta is {beta}", remedy="give 0 up to, but not including, 1; 0.9 to 0.9999 are customary"
            )
        # expm1 keeps 1 - beta^count exact where beta^count is close to 1.
        raw = np.full_like(present, 1.0) if beta == 0 else (1.0 - beta) / -np.expm1(present * np.log(beta))
    else:
        raise ConfigError(f"no weighting is called {how!r}", remedy="known: effective, inverse, none")
    rows = np.array(counts, dtype=np.float64)
    return tuple((raw * rows.sum() / (raw * rows).sum()).tolist())


def balanced_indexes(labels: Sequence[int], how: Balance, *, seed: int, epoch: int) -> list[int]:
    """Indexes into the rows for one epoch, shuffled; a pure function of its arguments.

    `over`: every class as often as the most frequent: all its rows, repeated in whole rounds, the last round a random
    part. `under`: every class as often as the rarest, another random part of its rows each epoch. `none`: a shuffle.
    """
    if how not in ("none", "over", "under"):
        raise ConfigError(f"no balance is called {how!r}", remedy="known: none, over, under")
    rng = np.random.default_rng([seed, epoch])
    if how == "none":
        return [int(row) for row in rng.permutation(len(labels))]
    given = np.asarray(labels)
    members = [np.flatnonzero(given == label) for label in np.unique(given)]
    sizes = [len(rows) for rows in members]
    wanted = (max if how == "over" else min)(sizes, default=0)
    drawn = [_draw(rows, wanted, rng) for rows in members]
    return [int(row) for row in rng.permutation(np.concatenate(drawn))] if drawn else []


def _draw(rows: npt.NDArray[np.intp], wanted: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    rounds, rest = divmod(wanted, len(rows))
    return np.concatenate([np.tile(rows, rounds), rng.permutation(rows)[:rest]])
