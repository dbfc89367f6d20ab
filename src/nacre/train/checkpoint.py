"""Checkpoints of a run: complete or absent, verified when read, the best one kept.

FOLDER/step-00000120/state.pt         everything a resumed run needs
FOLDER/step-00000120/checkpoint.json  step, size and SHA-256 of the state
FOLDER/best.json                      which step had the best evaluation, and its value
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nacre.errors import IntegrityError, ResourceError
from nacre.progress import Progress

STATE, MANIFEST, BEST = "state.pt", "checkpoint.json", "best.json"
_FOLDER = re.compile(r"step-(\d{8,})")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints under `folder`: the newest `keep`, and the best."""

    folder: Path
    keep: int = 2

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        found = [_FOLDER.fullmatch(path.name) for path in self.folder.iterdir()]
        return sorted(int(match[1]) for match in found if match)

    def good(self, step: int) -> str:
        """What is left of a run that diverged with the weights of `step`, in words: the newest checkpoint before it."""
        before = [one for one in self.steps() if one < step]
        return f"the last good checkpoint is {self.path(before[-1])}" if before else "no checkpoint was good"

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Writes the checkpoint of `step`: under another name first, renamed when every byte is on the disk.

        An intact checkpoint of the same step is left as it is: its content follows from the step. Raises ResourceError
        when the disk is full; what was there before is then untouched.
        """
        final, draft = self.path(step), self.folder / f".draft-{step:08d}"
        if final.exists():
            try:
                _verify(final)
            except IntegrityError:
                shutil.rmtree(final)
            else:
                return final
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            torch.save(state, draft / STATE)
            manifest = {"step": step, "bytes": (draft / STATE).stat().st_size, "sha256": _sha256(draft / STATE)}
            (draft / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
            for name in (STATE, MANIFEST):
                _flush(draft / name)
            draft.rename(final)
            _flush(self.folder)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise _explained(error, final) from error
        self._prune()
        return final

    def load(self, step: int, device: torch.device | str = "cpu") -> dict[str, Any]:
        """The state saved at `step`; IntegrityError when its bytes are not those that were written."""
        folder = self.path(step)
        _verify(folder)
        state: dict[str, Any] = torch.load(folder / STATE, map_location=device, weights_only=True)
        return state

    def latest(self, progress: Progress, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The newest intact state, or None for a new run. A damaged one is reported and the one before taken.

        Raises IntegrityError when there are checkpoints and all are damaged: starting anew would hide the loss.
        """
        damage: IntegrityError | None = None
        for step in reversed(self.steps()):
            try:
                return self.load(step, device)
            except IntegrityError as error:
                damage = error
                progress.note("checkpoint damaged, the one before is tried", step=step, why=error.message)
        if damage is not None:
            raise damage
        return None

    def mark_best(self, step: int, metric: str, value: float) -> None:
        """Keeps the checkpoint of `step` until a better one is marked."""
        draft = self.folder / f".{BEST}"
        draft.write_text(json.dumps({"step": step, "metric": metric, "value": value}), encoding="utf-8")
        draft.replace(self.folder / BEST)

    def best_step(self) -> int | None:
        try:
            step: int = json.loads((self.folder / BEST).read_text(encoding="utf-8"))["step"]
        except FileNotFoundError:
            return None
        return step

    def _prune(self) -> None:
        kept = {*self.steps()[-self.keep :], self.best_step()}
        for step in self.steps():
            if step not in kept:
                doomed = self.folder / f".doomed-{step:08d}"
                self.path(step).rename(doomed)
                shutil.rmtree(doomed)


def _verify(folder: Path) -> None:
    """Raises IntegrityError unless the state has the bytes that were written."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        intact = manifest["sha256"] == _sha256(folder / STATE)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(folder, f"cannot be read: {error}") from error
    if not intact:
        raise _damaged(folder, "its content differs from its checksum")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Makes the bytes of a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(folder: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"the checkpoint {folder} is damaged: {why}",
        remedy=f"remove that folder and run again: the run goes on from the checkpoint before it: rm -r {folder}",
    )


def _explained(error: OSError | RuntimeError, final: Path) -> Exception:
    # torch reports a full disk as a RuntimeError of its archive writer.
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if full or "PytorchStreamWriter" in str(error) or "unexpected pos" in str(error):
        free_mib = shutil.disk_usage(final.parent).free // 2**20 if final.parent.is_dir() else 0
        return ResourceError(
            f"the checkpoint {final} could not be written: {error} ({free_mib} MiB free)",
            remedy="free disk space, or set keep_checkpoints to 1, and run again: it goes on from the last checkpoint",
        )
    return error
