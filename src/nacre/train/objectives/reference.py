"""A reference policy: how likely it finds answers, computed once before training and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from nacre.errors import TrainingError
from nacre.kernel.adapters import adapted
from nacre.kernel.model import Kernel
from nacre.progress import Progress, Silent
from nacre.train.objectives.answers import Side, Sides, answer_logps
from nacre.train.precision import autocast

Collate = Callable[[Sequence[Side]], Sides]
_BATCHES = 16  # between two writes


class Reference:
    """The policy that answers are compared with: the kernel that is trained, with its adapters off where it has some.
    Where it is another one, give what loads it: it is held only while it scores, with what it was saved with.

    What was computed lies under `folder`, named by the kernel's weights and the answers: a run that was killed goes on
    behind the last part that was written, to the same values. `precision` is the run's, resolved; with bf16 autocast
    comes nearest, as the weights are not lowered for this.
    """

    def __init__(
        self,
        kernel: Kernel | Callable[[], Kernel],
        *,
        folder: Path | None = None,
        batch: int = 16,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        progress: Progress | None = None,
    ) -> None:
        self._kernel, self.folder, self.batch, self.device = kernel, folder, batch, torch.device(device)
        self.precision = "bf16_autocast" if precision == "bf16" else precision
        self.progress: Progress = progress or Silent()

    @torch.no_grad()
    def logps(self, sides: Sequence[Side], collate: Collate) -> npt.NDArray[np.float32]:
        """(N,) the log-probability of each answer in nats, in the order of `sides`."""
        order = sorted(range(len(sides)), key=lambda row: len(sides[row]))
        found = np.zeros(len(sides), dtype=np.float32)
        kernel = self._kernel if isinstance(self._kernel, Kernel) else self._kernel()
        with _at_rest(kernel), adapted.disabled(kernel) if kernel is self._kernel else nullcontext():
            file = self._file(kernel, sides)
            done = _read(file, self.batch * _BATCHES, len(sides))
            for start in range(len(done), len(sides), self.batch * _BATCHES):
                part = order[start : start + self.batch * _BATCHES]
                values = [
                    self._scored(kernel, collate([sides[row] for row in rows])) for rows in _split(part, self.batch)
                ]
                done = np.concatenate([done, *values])
                _append(file, np.concatenate(values))
                self.progress.update(len(done), len(sides), reference=len(done))
        if not np.isfinite(done).all():
            raise TrainingError(
                "the reference finds an answer impossible (its log-probability is not finite)",
                remedy="give a reference whose weights are finite; one in float16 may need float32",
            )
        found[order] = done
        return found

    def _scored(self, kernel: Kernel, batch: Sides) -> npt.NDArray[np.float32]:
        with autocast(self.precision, self.device):
            values, _ = answer_logps(kernel.to(self.device), batch.to(self.device))
        scored: npt.NDArray[np.float32] = values.float().cpu().numpy()
        return scored

    def _file(self, kernel: Kernel, sides: Sequence[Side]) -> Path | None:
        """Adapters that are off are no part of the identity."""
        if self.folder is None:
            return None
        # Processes of one run each ask for themselves, and write no file together.
        how = f"{self.batch} {self.precision} {os.environ.get('RANK', '0')}"
        digest = hashlib.blake2b(how.encode(), digest_size=12)
        off = kernel is self._kernel
        for name, weight in sorted(kernel.state_dict().items()):
            if not (off and adapted.is_adapter(name)):
                digest.update(name.encode())
                digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        for side in sides:
            digest.update(np.array([len(side.source), len(side.target)], np.int64).tobytes())
            digest.update(side.source.tobytes() + side.target.tobytes())
        return self.folder / f"reference-{digest.hexdigest()}.f32"


def _split(rows: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _read(file: Path | None, part: int, total: int) -> npt.NDArray[np.float32]:
    """The values of whole parts; what a kill left of another is cut off."""
    if file is None or not file.is_file():
        return np.zeros(0, dtype=np.float32)
    values = np.fromfile(file, dtype=np.float32)
    whole = total if len(values) >= total else len(values) // part * part
    os.truncate(file, whole * values.itemsize)
    return values[:whole]


def _append(file: Path | None, values: npt.NDArray[np.float32]) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as out:
        out.write(values.tobytes())
        out.flush()
        os.fsync(out.fileno())


@contextmanager
def _at_rest(kernel: Kernel) -> Iterator[None]:
    training = kernel.training
    kernel.eval()
    try:
        yield
    finally:
        kernel.train(training)
