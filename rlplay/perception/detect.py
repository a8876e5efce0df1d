"""What there is in a picture and where: a box and a kind for every object.

A one-stage detector in the manner of FCOS (Tian et al. 2019), or torchvision's Faster R-CNN (Ren et
al. 2015) and Mask R-CNN (He et al. 2017), all on the same encoders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from rlplay.core import Array, Mistake, Range
from rlplay.nets import backbones
from rlplay.nets.detectors import Detector, Fcos, Found, Neck, Truth, cut
from rlplay.nets.regions import RegionCNN
from rlplay.perception import extras, framed
from rlplay.perception.average_precision import AveragePrecision
from rlplay.perception.source import Source
from rlplay.perception.task import Batch, Task

LEAST_SIDE = 0.5  # pixels of an object, left in the picture, that can be seen
SURE = 0.5  # score from which an object is drawn
NUM_DRAWN = 6  # more pictures make the drawing unwieldy
NUM_NAMED = 3  # kinds in a sentence
LOOKED_THROUGH = 64  # examples at a time


@dataclass(frozen=True)
class Config:
    name: Literal["detect"] = "detect"
    kind: Literal["fcos", "faster_rcnn", "mask_rcnn"] = "fcos"
    """fcos says of every location what is there; faster_rcnn looks twice, and mask_rcnn tells the
    pixels of each object, too."""
    encoder: backbones.Config = field(default_factory=backbones.Config)
    """The network from picture to feature maps."""
    width: Annotated[int, Range(1)] = 32
    """Channels of the one map that is made of them."""
    stride: Literal[1, 2, 4] = 2
    """Pixels a side that a location of this map stands for."""
    radius: Annotated[float, Range(0, 100)] = 1.5
    """Of fcos: how far from its centre locations answer for an object, in locations."""
    centreness: bool = False
    """Of fcos: learn how far in the middle of its object a location is, and trust those more."""
    anchors: tuple[Annotated[float, Range(1)], ...] = (4, 8, 16, 32)
    """Of the two others: sides of the squares, pixels, that proposals start from."""
    hidden: Annotated[int, Range(1)] = 128
    """Of the two others: width of the layers that look at a proposal."""
    threshold: Annotated[float, Range(0, 1)] = 0.05
    """Score below which nothing is found."""
    overlap: Annotated[float, Range(0, 1)] = 0.5
    """Of two objects of a kind that share more of their union than this, the surer one is kept."""
    most: Annotated[int, Range(1, 1000)] = 200
    """Objects found in a picture at most."""
    num_validated: Annotated[int, Range(0)] = 0
    """Pictures of the validation that are looked at, spread over it; 0 for all."""

    def make(self, source: Source) -> Detect:
        """Build the task. Raises Mistake where the source has no boxes or not a single object, its
        pictures do not suit the encoder, or a module is missing."""
        source.require("boxes", self.name)
        source.require("kind", self.name)
        if self.kind == "mask_rcnn":
            source.require("mask", f"{self.name} of the kind mask_rcnn")
        works(extras.torchvision("the task detect"))
        AveragePrecision(source.kinds, self.most)
        if self.kind != "fcos" and not self.anchors:
            raise Mistake(f"{self.kind} needs task.anchors, such as (4, 8, 16, 32), and not none")
        for split, index in source.splits.items():
            if not any_object(source, index):
                raise Mistake(
                    f"the data {source.name} have not a single object in the {len(index):,}"
                    f" pictures of the split {split!r}: take more pictures, or another data.seed"
                )
        return Detect(self, source)


class Detect(Task):
    goal = "map50"

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(source)
        self.config = config
        self.encoder = config.encoder.make(source.shape)
        num_inputs, num_kinds = source.shape[0], len(source.kinds) - 1
        neck = Neck(self.encoder, num_inputs, config.width, config.stride)
        ends = (config.threshold, config.overlap, config.most)
        self.detector: Detector
        if config.kind == "fcos":
            self.detector = Fcos(
                neck, config.width, num_kinds, config.radius, config.centreness, *ends
            )
        else:
            masks = config.kind == "mask_rcnn"
            self.detector = RegionCNN(
                neck, config.width, num_kinds, config.anchors, config.hidden, masks, *ends
            )

    def batches(self, split: str, size: int, order: Array | None = None) -> Iterator[Batch]:
        """Yield batches as every task does; of the validation, unless in an order, no more than
        are to be looked at. Raises Mistake where a box or a kind is none."""
        num, most = self.num_examples(split), self.config.num_validated
        if split == "validation" and order is None and 0 < most < num:
            order = np.linspace(0, num - 1, most).astype(np.int64)
        for batch in super().batches(split, size, order):
            check(batch["boxes"], batch["kind"], self.source)
            yield batch

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        picture = self.prepared(batch["picture"])
        parts = self.detector.loss(picture, self.encoder(picture), truth(batch))
        total = torch.stack(list(parts.values())).sum()
        return total, {name: part.detach() for name, part in parts.items()}

    def find(self, picture: Tensor) -> list[Found]:
        """Return what is found in each of pictures [B, C, H, W] uint8."""
        ready = self.prepared(picture)
        return self.detector.find(ready, self.encoder(ready))

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the mean average precisions map50 and map, and ap50 of each kind there is."""
        precision = AveragePrecision(self.source.kinds, self.config.most)
        for batch in batches:
            precision.add(self.find(batch["picture"]), truth(batch))
        return precision.result()

    def sentence(self, metrics: dict[str, float]) -> str:
        text = f"mAP50 {metrics['map50']:.3f}, mAP {metrics['map']:.3f}"
        each = {k.removeprefix("ap50_"): v for k, v in metrics.items() if k.startswith("ap50_")}
        worst = sorted(each, key=lambda name: each[name])[:NUM_NAMED]
        text += "; least AP50: " + ", ".join(f"{name} {each[name]:.3f}" for name in worst)
        if absent := [name for name in self.source.kinds[1:] if name not in each]:
            text += f"; not to be seen there: {', '.join(absent)}"
        return text

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return pictures with the boxes found, in the colour of their kind, around the true ones;
        and with the pixels of each, where they are told."""
        batch = {name: tensor[:NUM_DRAWN] for name, tensor in batch.items()}
        there, kinds = truth(batch), self.source.kinds
        found = [sure(one) for one in self.find(batch["picture"])]
        pictures = [framed.colours(picture) for picture in batch["picture"].cpu().numpy()]
        boxes = [
            own[kind > 0].cpu().numpy() for own, kind in zip(there.boxes, there.kind, strict=True)
        ]
        drawn = {"boxes": framed.sheet(pictures, boxes, found, kinds)}
        if self.config.kind == "mask_rcnn":
            painted = [framed.painted(*pair) for pair in zip(pictures, found, strict=True)]
            drawn["masks"] = framed.sheet(painted, boxes, [], kinds)
        return drawn


def truth(batch: Batch) -> Truth:
    """Return what there is to be found in a batch. What lies outside of the picture is cut off; of
    what nothing can be seen, no object is left."""
    height, width = batch["picture"].shape[2:]
    boxes = cut(batch["boxes"].float(), height, width)
    seen = (boxes[..., 2:] - boxes[..., :2]).amin(-1) >= LEAST_SIDE
    return Truth(boxes, batch["kind"] * seen, batch.get("mask"))


def sure(found: Found) -> Found:
    """Return those of which it is sure."""
    which = found.score >= SURE
    mask = None if found.mask is None else found.mask[which]
    return Found(found.boxes[which], found.score[which], found.kind[which], mask)


def check(boxes: Tensor, kind: Tensor, source: Source) -> None:
    """Raise Mistake where a kind [B, K] has no name, or the box [B, K, 4] of an object is none."""
    if kind.numel() and not 0 <= kind.min() <= kind.max() < len(source.kinds):
        wrong = kind.max() if kind.max() >= len(source.kinds) else kind.min()
        raise Mistake(
            f"the data {source.name} have an object of the kind {int(wrong)}, but their kinds are"
            f" numbered 0 (none) to {len(source.kinds) - 1}: mend the labels"
        )
    there = boxes[kind > 0]
    right = (there[:, 2:] >= there[:, :2]).all(1)  # false for what is not a number, too
    if not (right & there.isfinite().all(1)).all():
        example = there[~(right & there.isfinite().all(1))][0].tolist()
        raise Mistake(
            f"the data {source.name} have an object with the edges {example}: they must be left,"
            " top, right and bottom, in pixels; mend the labels"
        )


def any_object(source: Source, index: Array) -> bool:
    """Tell whether there is an object in any of these examples."""
    parts = (index[i : i + LOOKED_THROUGH] for i in range(0, len(index), LOOKED_THROUGH))
    return any(np.any(source.arrays["kind"][part] > 0) for part in parts)


def works(torchvision: object) -> None:
    """Raise Mistake where torchvision is there without what it was compiled for."""
    from torchvision.ops import nms

    try:
        nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        raise extras.unfit() from error
