"""Classification of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nacre.errors import ConfigError, DataError
from nacre.train.objective import Batch, Row
from nacre.train.objectives.classify import Labelled, check_labels
from nacre.train.objectives.config import ImageConfig

if TYPE_CHECKING:
    from nacre.kernel.model import Kernel


@dataclass(frozen=True)
class ImageExample:
    """`pixels` (C, H, W) float32, normalised; `label` indexes the classes."""

    pixels: npt.NDArray[np.float32]
    label: int


@dataclass(frozen=True)
class ImageBatch(Batch):
    """`pixels` (B, C, H, W) float32, `labels` (B,) int64."""

    pixels: Tensor
    labels: Tensor


class ClassifyImage(Labelled):
    """Rows are `{"pixels", "label"}`; pixels are nested lists (H, W) or (C, H, W) of numbers."""

    def __init__(self, labels: Sequence[str], config: ImageConfig) -> None:
        super().__init__(labels, config.weighting, config.beta, config.loss)
        self.config = config

    def check(self, kernel: Kernel) -> None:
        given = (kernel.config.image_size, kernel.config.channels, kernel.config.head)
        if given != (self.config.size, self.config.channels, "classify"):
            raise ConfigError(
                f"the kernel has (image_size, channels, head) {given}, the data needs "
                f"{(self.config.size, self.config.channels, 'classify')}",
                remedy="build the kernel from the preset vit with these",
            )
        check_labels(kernel, self.labels)

    def encode(self, row: Row) -> ImageExample:
        label, shape = self.label_of(row), (self.config.channels, self.config.size, self.config.size)
        try:
            pixels = np.array(row.get("pixels"), dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"the field 'pixels' is no array of numbers ({error})", remedy="give rows of numbers"
            ) from error
        pixels = pixels[None] if pixels.ndim == 2 else pixels
        if pixels.shape != shape:
            raise DataError(
                f"the field 'pixels' has the shape {pixels.shape}, not {shape}",
                remedy="resize the images, or set size and channels",
            )
        return ImageExample((pixels - np.float32(self.config.mean)) / np.float32(self.config.std), label)

    def length(self, example: ImageExample) -> int:
        del example
        return self.config.size**2

    def collate(self, examples: Sequence[ImageExample], rng: torch.Generator) -> ImageBatch:
        del rng
        pixels = torch.from_numpy(np.stack([example.pixels for example in examples]))
        return ImageBatch(pixels, torch.tensor([example.label for example in examples]))

    def tokens(self, batch: ImageBatch) -> int:
        """Pixels of one channel: an image has no tokens of its own."""
        return len(batch.labels) * self.config.size**2

    def logits(self, kernel: Kernel, batch: ImageBatch) -> Tensor:
        return kernel.class_logits(kernel(batch.pixels).hidden)
