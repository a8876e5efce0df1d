"""What every pixel of a picture is of: an encoder, a decoder back to the picture's size, and
cross-entropy at each pixel. Measured by the Jaccard index (1901), also called intersection over
union, as in Pascal VOC (Everingham et al. 2010)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rlplay.core import Array, Mistake, Range
from rlplay.nets import backbones, segmenters
from rlplay.palette import LINE, SLATE
from rlplay.perception import gallery
from rlplay.perception.extras import missing
from rlplay.perception.source import Source
from rlplay.perception.task import Batch, Task

if TYPE_CHECKING:
    from torchmetrics.classification import MulticlassJaccardIndex

IGNORED = 255  # the number in masks of pixels that are of no kind
AT_ONCE = 100  # masks that are counted at once
DRAWN_HEIGHT = 500  # pixels that a drawing should not be higher than


@dataclass(frozen=True)
class Config:
    name: Literal["segment"] = "segment"
    encoder: backbones.Config = field(default_factory=backbones.Config)
    """The network from picture to feature maps."""
    network: segmenters.NetworkName = "unet"
    """The way back: unet (Ronneberger et al. 2015) joins all maps and the picture; fcn32s, fcn16s
    and fcn8s (Long et al. 2015) add up scores of one, two and three of the coarsest maps; dilated
    (Yu & Koltun 2016) looks around on the finest map."""
    channels: Annotated[int, Range(1)] = 16
    """Of unet at the picture's own size, and of dilated."""
    balance: Annotated[float, Range(0, 1)] = 0.5
    """How much more a pixel of a rare kind counts: pixels are weighed by how often their kind
    comes in training, to the power of minus this; 0 weighs all alike, 1 all kinds."""

    def make(self, source: Source) -> Segment:
        """Build the task. Raises Mistake where the source has no masks that fit its pictures and
        kinds, where they show background alone, or where the pictures do not suit the encoder."""
        source.require("mask", self.name)
        return Segment(self, source)


class Segment(Task):
    goal = "jaccard"

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(source)
        self.config = config
        num_inputs, *size = source.shape
        if (of_mask := list(source.arrays["mask"].shape[1:])) != size:
            raise Mistake(
                f"the masks of the data {source.name} have {of_mask[0]}x{of_mask[1]} pixels and"
                f" their pictures {size[0]}x{size[1]}: make them of one size"
            )
        self.counts = counted(source)
        self.weight = torch.from_numpy(weights(self.counts, config.balance))  # [K]
        self.remark = unseen(source.kinds, self.counts)
        self.encoder = config.encoder.make(source.shape)
        self.decoder = segmenters.make(
            config.network, self.encoder, num_inputs, len(source.kinds), config.channels
        )

    def forward(self, picture: Tensor) -> Tensor:
        """Return the logits [B, K, H, W] float32 of the kinds of every pixel of pictures
        [B, C, H, W] uint8."""
        x = self.prepared(picture).contiguous(memory_format=torch.channels_last)
        return self.decoder(self.encoder(x), x)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, mask = self(batch["picture"]), batch["mask"].long()
        loss = cross_entropy(logits, mask, self.weight.to(logits.device))
        right = (logits.detach().argmax(1) == mask).sum()
        return loss, {"accuracy": right / (mask != IGNORED).sum().clamp(min=1)}

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the Jaccard index of each kind and its mean over them, the share of pixels that
        are right, and the cross-entropy, nats a pixel, unweighed. A kind that neither was there nor
        was seen has no index and does not count. Raises Mistake where a mask has other numbers than
        those of kinds, or torchmetrics is not installed."""
        names, total = self.source.kinds, 0.0
        index = jaccard_index(len(names))
        for batch in batches:
            within(batch["mask"].cpu().numpy(), self.source)
            logits, mask = self(batch["picture"]), batch["mask"]
            index = index.to(logits.device)
            index.update(logits.argmax(1), mask)
            total += F.cross_entropy(
                logits, mask.long(), ignore_index=IGNORED, reduction="sum"
            ).item()
        confusion = index.confmat.cpu().numpy()  # [truth, said]
        pixels = confusion.sum()
        there = confusion.sum(0) + confusion.sum(1) > 0  # [K]
        each = index.compute().cpu().numpy()
        by_kind = {names[k]: float(each[k]) for k in np.flatnonzero(there)}
        return {
            "jaccard": float(each[there].mean()) if there.any() else 0.0,
            "accuracy": float(confusion.trace() / max(pixels, 1)),
            "cross_entropy": total / max(int(pixels), 1),
            "kinds": float(there.sum()),
            **{f"jaccard_{name}": value for name, value in by_kind.items()},
        }

    def sentence(self, metrics: dict[str, float]) -> str:
        found = {name: metrics.get(f"jaccard_{name}") for name in self.source.kinds}
        each = sorted((value, name) for name, value in found.items() if value is not None)
        worst = ", ".join(f"{name} {value:.2f}" for value, name in each[:8])
        return (
            f"mean Jaccard {metrics['jaccard']:.4f} of {metrics['kinds']:.0f} kinds ({worst}),"
            f" {metrics['accuracy']:.2%} of the pixels right"
        )

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return some of the pictures, each beside its true kinds, those that were found, and where
        they differ; with a legend of the colours."""
        pictures, truth = batch["picture"].cpu().numpy(), batch["mask"].cpu().numpy()
        height = pictures.shape[2] * gallery.enlargement(pictures[0])
        num = max(1, min(len(pictures), 2 * (DRAWN_HEIGHT // height)))
        chosen = np.linspace(0, len(pictures) - 1, num).astype(int)
        pictures, truth = pictures[chosen], truth[chosen]
        said = self(batch["picture"][torch.from_numpy(chosen)]).argmax(1).cpu().numpy()
        return {"masks": drawing(pictures, truth, said, self.source.kinds)}


def cross_entropy(logits: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Return the mean cross-entropy, nats, of pixels [B, H, W] int64 that are of a kind, weighed by
    kind [K]; 0 where there is none."""
    total = F.cross_entropy(logits, mask, weight, ignore_index=IGNORED, reduction="sum")
    shares = torch.bincount(mask.flatten(), minlength=IGNORED + 1)[: len(weight)]
    return total / (shares * weight).sum().clamp(min=1e-6)


def counted(source: Source) -> Array:
    """Return how many pixels of each kind [K] int64 the training has. Raises Mistake where masks
    have other numbers than those of kinds, or show one kind alone."""
    counts = np.zeros(len(source.kinds), np.int64)
    index = source.splits["train"]
    for first in range(0, len(index), AT_ONCE):
        counts += within(source.arrays["mask"][index[first : first + AT_ONCE]], source)
    if (counts > 0).sum() < 2:
        only = [name for name, count in zip(source.kinds, counts, strict=True) if count]
        raise Mistake(
            f"every pixel of the {len(index):,} masks to learn from is"
            f" {only[0] if only else 'to be ignored'}, so there is nothing to tell apart: take"
            " other data, or more of them"
        )
    return counts


def within(mask: Array, source: Source) -> Array:
    """Return how many pixels of masks [B, H, W] are of each kind, [K]. Raises Mistake where there
    are other numbers."""
    counts = np.bincount(mask.ravel(), minlength=IGNORED + 1)
    counts[IGNORED] = 0
    num = len(source.kinds)
    if others := np.flatnonzero(counts[num:]).tolist():
        raise Mistake(
            f"a mask of the data {source.name} has the number {num + others[0]}, but its {num}"
            f" kinds are numbered 0 to {num - 1}, and {IGNORED} is to be ignored: mend the masks,"
            " or name all kinds"
        )
    return counts[:num]


def weights(counts: Array, balance: float) -> Array:
    """Return how much a pixel of each kind counts, [K] float32, given how many there are: their
    share to the power of -`balance`, the mean over all pixels being 1; 0 for kinds without any."""
    share = counts / counts.sum()
    raised = np.where(counts > 0, np.maximum(share, 1e-12) ** -balance, 0)
    return (raised / (share * raised).sum()).astype(np.float32)


def unseen(kinds: tuple[str, ...], counts: Array) -> str:
    """Return what is to be said of kinds without a pixel in the training, if any."""
    without = [name for name, count in zip(kinds, counts, strict=True) if not count]
    if not without:
        return ""
    return (
        f"no pixel of the training is {' or '.join(without)}: that cannot be learned from these"
        " data, and counts as not found where it occurs in the validation or the test"
    )


def jaccard_index(num_kinds: int) -> MulticlassJaccardIndex:
    """Return what gathers the Jaccard indices. Raises Mistake where torchmetrics is missing."""
    try:
        from torchmetrics.classification import MulticlassJaccardIndex
    except ImportError as error:
        raise missing("the task segment", "torchmetrics") from error
    return MulticlassJaccardIndex(
        num_kinds, average="none", ignore_index=IGNORED, validate_args=False
    )


# Drawing.

MISSED, INVENTED, MISTAKEN = (255, 40, 40), (255, 190, 0), (90, 150, 255)
# An object's pixels taken for background, background's for an object, an object's for another's.


def drawing(pictures: Array, truth: Array, said: Array, kinds: tuple[str, ...]) -> Array:
    """Return pictures [n, C, H, W], each beside its true kinds, those that were found [n, H, W] and
    where they differ, under a legend; [H', W', 3] uint8."""
    inks = gallery.inks(len(kinds) - 1)
    table = np.full((IGNORED + 1, 3), SLATE, np.uint8)  # of each number in a mask its colour
    table[: len(kinds)] = [LINE, *inks]
    cells, captions = [], []
    for picture, true, found in zip(pictures, truth, said, strict=True):
        known = true != IGNORED
        missed = known & (true > 0) & (found == 0)
        invented = known & (true == 0) & (found > 0)
        mistaken = known & (true > 0) & (found > 0) & (true != found)
        shown = gallery.coloured(picture)
        differs = (shown * 0.2).astype(np.uint8).transpose(1, 2, 0)  # [H, W, 3], dimmed
        for where, ink in ((missed, MISSED), (invented, INVENTED), (mistaken, MISTAKEN)):
            differs[where] = ink
        cells += [shown, *(one.transpose(2, 0, 1) for one in (table[true], table[found], differs))]
        num = int((missed | invented | mistaken).sum())
        captions += ["picture", "truth", "found", f"{num:,} pixels differ"]
        captions[-1] = {0: "no pixel differs", 1: "1 pixel differs"}.get(num, captions[-1])
    sheet = gallery.grid(np.stack(cells), captions, columns=4 * (1 + (len(pictures) > 1)))
    entries: list[tuple[str, gallery.Ink | None]] = [("kinds:", None)]
    entries += zip(kinds[1:], inks, strict=True)
    entries += [("of no kind", SLATE)] if (truth == IGNORED).any() else []
    entries += [("where they differ:", None), ("missed", MISSED), ("invented", INVENTED)]
    entries += [("taken for another kind", MISTAKEN)]
    return np.concatenate([gallery.legend(entries, sheet.shape[1]), sheet])
