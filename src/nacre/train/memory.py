"""Peak memory, and a clear error when there is not enough."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nacre.errors import ResourceError


def peak_memory_mib(device: torch.device) -> float:
    """The most memory this process has held: of the GPU on CUDA, resident otherwise."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@contextmanager
def out_of_memory_explained(micro_batch: int, checkpoints_activations: bool) -> Iterator[None]:
    """Turns an allocation that failed into a ResourceError whose remedy fits the run."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        smaller = f"set micro_batch to {micro_batch // 2}" if micro_batch > 1 else "take a smaller kernel or context"
        also = "" if checkpoints_activations else ", or checkpoint_activations to true"
        raise ResourceError(
            f"out of memory with micro batches of {micro_batch} examples: {str(error).splitlines()[0]}",
            remedy=f"{smaller}{also}; the same command then goes on from the last checkpoint",
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU allocator has no exception type of its own.
    return "not enough memory" in str(error) or "can't allocate memory" in str(error)
