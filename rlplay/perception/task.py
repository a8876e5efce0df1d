"""What every perception task promises: an encoder, batches, a loss, and how well it does.

A task is a network that learns to see; its encoder is what an agent may take over. Like the agents'
networks it sees pictures as uint8 and computes on 0..1. It does not know how it is trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import ClassVar

import torch
from torch import Tensor, nn

from rlplay.core import Array
from rlplay.nets.encoders import Encoder
from rlplay.perception.source import Source

Batch = dict[str, Tensor]
"""picture [B, C, H, W] uint8, and labels [B, ...] by name, as in Source."""


class Task(nn.Module):
    """A network and what it is to learn from a source."""

    encoder: Encoder
    goal: ClassVar[str]
    """The metric by which the best is kept."""
    minimize: ClassVar[bool] = False
    """Tell that less of it is better."""
    remark: str = ""
    """What is to be said about the source before the training starts, a sentence."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source

    def num_examples(self, split: str) -> int:
        """Return how many examples an epoch of a split has."""
        return len(self.source.splits[split])

    def batches(self, split: str, size: int, order: Array | None = None) -> Iterator[Batch]:
        """Yield the examples of a split in batches of `size` and fewer at the end; in `order`, an
        array of numbers below `num_examples`, or as they lie."""
        index = self.source.splits[split]
        index = index if order is None else index[order]
        for first in range(0, len(index), size):
            taken = self.source.take(index[first : first + size])
            yield {name: torch.from_numpy(array) for name, array in taken.items()}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is to be made small, float32, and metrics by name."""
        raise NotImplementedError

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return how well it does on all examples of some batches, by name; `goal` among them."""
        raise NotImplementedError

    def sentence(self, metrics: dict[str, float]) -> str:
        """Return what `examine` found in words."""
        return f"{self.goal} {metrics[self.goal]:.4f}"

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return pictures [H, W, 3] uint8, by name, that show what it makes of some examples."""
        raise NotImplementedError

    def prepared(self, picture: Tensor) -> Tensor:
        """Return pictures [B, C, H, W] uint8 as the network's numbers, 0..1; others as they are."""
        first = next(chain(self.encoder.parameters(), self.parameters()))
        if picture.dtype != torch.uint8:
            return picture.to(first.dtype)
        return picture.to(first.dtype).mul_(1 / 255)
