"""Which of the classes a picture is of: an encoder, a layer or two, and cross-entropy. Of several
labels at once, `Config.target` tells which; see variables.py and squares.py."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Array, Mistake, Range
from rlplay.nets import backbones
from rlplay.nets.heads import Float32Linear
from rlplay.palette import GREEN, RED
from rlplay.perception import gallery
from rlplay.perception.source import Source
from rlplay.perception.task import Batch, Task


@dataclass(frozen=True)
class Config:
    name: Literal["classify"] = "classify"
    target: Literal["label", "variables", "squares"] = "label"
    """label is one class for each picture; variables are all those of a game's state, squares all
    those of a board."""
    encoder: backbones.Config = field(default_factory=backbones.Config)
    """The network from picture to feature maps."""
    pool: Literal["auto", "mean", "axes", "none"] = "auto"
    """mean reduces the coarsest map to the mean of each channel; auto does where it is coarser than
    a sixteenth of the picture; axes takes, of all maps, the greatest of each row and of each
    column, which tell where things are."""
    hidden: Annotated[int, Range(0)] = 128
    """Width of the layer between features and classes; 0 for none."""
    dropout: Annotated[float, Range(0, 0.99)] = 0.0
    """Share of the features, and of the hidden layer, left out while learning (Srivastava et al.
    2014)."""
    smoothing: Annotated[float, Range(0, 0.99)] = 0.0
    """Share of the certainty that the other classes get in the target (Szegedy et al. 2016)."""
    spread: Annotated[float, Range(0, 64)] = 0.0
    """Of variables: deviation of a bell over the values around the true one, which is the target
    where a variable is a place; 0 for the true one alone (Diaz & Marathe 2019)."""
    heat: bool = False
    """Of variables: also find places as the middle of a map of where the thing may be, learned at
    the moments that show it (Levine et al. 2016); `pixels` then tells how far off that is."""

    def make(self, source: Source) -> Task:
        """Build the task. Raises Mistake where the source has no such target for each picture, or
        its pictures do not suit the encoder, or there is one class alone."""
        source.require(self.target, self.name)
        if self.target == "variables":
            from rlplay.perception.variables import Variables

            if "kind" in source.arrays:
                source.require("kind", self.name)  # to know when a thing can be seen
            return Variables(self, source)
        if self.target == "squares":
            from rlplay.perception.squares import Squares

            if "boxes" in source.arrays:
                source.require("boxes", self.name)  # to find the board
            return Squares(self, source)
        if len(source.classes) < 2:
            raise Mistake(
                f"the data {source.name} have one class, {', '.join(source.classes)}, so that there"
                " is nothing to tell apart: add another, or set another task.name"
            )
        return Classify(self, source, len(source.classes))


class Classify(Task):
    goal = "accuracy"

    def __init__(self, config: Config, source: Source, num_outputs: int) -> None:
        super().__init__(source)
        self.config = config
        self.encoder = config.encoder.make(source.shape)
        self.eval()
        with torch.no_grad():
            maps = self.encoder(torch.zeros(1, *source.shape))
        self.train()
        mean = config.pool == "mean" or (config.pool == "auto" and self.encoder.strides[-1] > 16)
        self.pool = Axes() if config.pool == "axes" else Last(mean)
        width = self.pool(maps).numel()
        self.dropout = nn.Dropout(config.dropout)
        self.hidden = nn.Linear(width, config.hidden) if config.hidden else None
        self.last = Float32Linear(config.hidden or width, num_outputs)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the logits [B, K] float32 of the classes of pictures [B, C, H, W] uint8."""
        return self.named(self.encoder(self.prepared(picture)))

    def named(self, maps: list[Tensor]) -> Tensor:
        """Return these logits, given the encoder's maps."""
        x = self.dropout(self.pool(maps))
        if self.hidden is not None:
            x = self.dropout(F.relu(self.hidden(x)))
        return self.last(x)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, label = self(batch["picture"]), batch["label"]
        loss = F.cross_entropy(logits, label, label_smoothing=self.config.smoothing)
        return loss, {"accuracy": (logits.argmax(1) == label).float().mean()}

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return accuracy with its 95% interval, the mean over the classes of their F1, and the
        cross-entropy, nats."""
        num_classes = len(self.source.classes)
        confusion = np.zeros((num_classes, num_classes), np.int64)  # [truth, said]
        total = 0.0
        for batch in batches:
            logits, label = self(batch["picture"]), batch["label"]
            total += F.cross_entropy(logits, label, reduction="sum").item()
            pairs = label * num_classes + logits.argmax(1)
            confusion += (
                torch.bincount(pairs, minlength=num_classes**2)
                .reshape(confusion.shape)
                .cpu()
                .numpy()
            )
        count, right = int(confusion.sum()), confusion.diagonal()
        low, high = wilson(int(right.sum()), count)
        either = confusion.sum(0) + confusion.sum(1)  # [K] said or true
        f1 = 2 * right[either > 0] / either[either > 0]
        return {
            "accuracy": float(right.sum() / count),
            "accuracy_low": low,
            "accuracy_high": high,
            "f1": float(f1.mean()),
            "cross_entropy": total / count,
            "errors": float(count - right.sum()),
            "examples": float(count),
        }

    def sentence(self, metrics: dict[str, float]) -> str:
        return (
            f"accuracy {metrics['accuracy']:.2%} (95% interval {metrics['accuracy_low']:.2%} to"
            f" {metrics['accuracy_high']:.2%}): {metrics['errors']:,.0f} of"
            f" {metrics['examples']:,.0f} wrong"
        )

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return the pictures with what they were taken for, and in red where that is wrong."""
        share, said = torch.softmax(self(batch["picture"]), 1).max(1)
        names, captions, inks = self.source.classes, [], []
        for sure, one, truth in zip(
            share.tolist(), said.tolist(), batch["label"].tolist(), strict=True
        ):
            right = one == truth
            captions.append(
                f"{names[one]}  {sure:.0%}" if right else f"{names[one]} not {names[truth]}"
            )
            inks.append(GREEN if right else RED)
        return {"predictions": gallery.grid(batch["picture"].cpu().numpy(), captions, inks)}


class Last(nn.Module):
    """Maps [B, C, H, W] -> the coarsest, or the mean of each of its channels, [B, F]."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, maps: list[Tensor]) -> Tensor:
        return maps[-1].mean((2, 3)) if self.mean else maps[-1].flatten(1)


class Axes(nn.Module):
    """Maps [B, C, H, W] -> the greatest of each row and of each column of all, [B, F]."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        ends = [end for x in maps for end in (x.amax(3).flatten(1), x.amax(2).flatten(1))]
        return torch.cat(ends, 1)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return the 95% interval of a share (Wilson 1927)."""
    z, share = 1.96, right / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)
