"""Networks that find objects: a neck that makes one fine map of an encoder's, and on it a one-stage
detector in the manner of FCOS (Tian et al. 2019).

Sprites are tiny: a shot is one pixel wide. So the map is fine, a location for every two pixels; the
picture itself enters it, to tell edges exactly; and an object owns at least the location nearest to
its centre, even where none lies inside it. Edges are told as distances from the far side of the
location's cell, which are positive wherever a box and the cell touch. One map is enough for objects
up to a fifth of the picture or so: those of very different sizes, as in photographs, want a map for
each size, which this one does not have.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.nets.backbones import convolution
from rlplay.nets.encoders import Encoder
from rlplay.nets.heads import Float32Convolution

PRIOR = 0.01  # what a location says at first of every kind (Lin et al. 2017)
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss (Lin et al. 2017)
MOST_CONSIDERED = 1000  # of a picture's locations, before what overlaps is left out
FARTHEST = 7.0  # logarithm of the largest distance, cells


class Truth(NamedTuple):
    """The objects of B pictures of height H and width W."""

    boxes: Tensor  # [B, K, 4] float32 left, top, right, bottom, pixels
    kind: Tensor  # [B, K] int64, 0 for no object
    mask: Tensor | None = None  # [B, H, W] uint8, the kind of every pixel


class Found(NamedTuple):
    """The n objects found in one picture, surest first."""

    boxes: Tensor  # [n, 4] float32 left, top, right, bottom, pixels
    score: Tensor  # [n] float32, 0..1
    kind: Tensor  # [n] int64, 1 and more
    mask: Tensor | None = None  # [n, H, W] bool


class Detector(nn.Module):
    """What a detector promises. The encoder's maps come from outside."""

    def loss(self, picture: Tensor, maps: list[Tensor], truth: Truth) -> dict[str, Tensor]:
        """Return the parts of the loss, float32, for pictures [B, C, H, W], 0..1."""
        raise NotImplementedError

    def find(self, picture: Tensor, maps: list[Tensor]) -> list[Found]:
        """Return what is in each picture."""
        raise NotImplementedError


class Neck(nn.Module):
    """An encoder's maps, coarsest last, and the picture -> one map [B, width, H / stride, W /
    stride] (rounded up): from coarse to fine each is enlarged and added to the next, as in a
    feature pyramid (Lin et al. 2017)."""

    def __init__(self, encoder: Encoder, num_inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        fits = [i for i, found in enumerate(encoder.strides) if found >= stride]
        self.used = fits or [len(encoder.strides) - 1]
        self.laterals = nn.ModuleList(
            convolution(encoder.channels[i], width, 1, 1, norm=True) for i in self.used
        )
        self.smooth = nn.ModuleList(convolution(width, width, 3, 1, norm=True) for _ in self.used)
        self.stem = convolution(num_inputs, width, 2 * stride - 1, stride, norm=True)

    def forward(self, picture: Tensor, maps: list[Tensor]) -> Tensor:
        skips = [layer(maps[i]) for i, layer in zip(self.used, self.laterals, strict=True)]
        finer = [*reversed(skips[:-1]), self.stem(picture)]
        x = F.relu(skips[-1])
        for skip, layer in zip(finer, reversed(self.smooth), strict=True):
            x = F.relu(layer(x))
            x = F.relu(F.interpolate(x, skip.shape[2:]) + skip)
        return x


class Fcos(Detector):
    """For every location a score of each kind, and how far the four edges are. While it learns,
    each kind counts alike: there may be one shot among forty invaders."""

    def __init__(
        self,
        neck: Neck,
        width: int,
        num_kinds: int,
        radius: float,
        centreness: bool,
        threshold: float,
        overlap: float,
        most: int,
    ) -> None:
        """`num_kinds` without the background; the rest as in the settings of the task `detect`."""
        super().__init__()
        self.neck, self.stride, self.radius = neck, neck.stride, radius
        self.threshold, self.overlap, self.most = threshold, overlap, most
        self.shared = convolution(width, width, 3, 1, norm=True)
        self.kinds = convolution(width, width, 3, 1, norm=True)
        self.edges = convolution(width, width, 3, 1, norm=True)
        self.last_kinds = Float32Convolution(width, num_kinds, 1)
        self.last_edges = Float32Convolution(width, 4, 1)
        self.last_centre = Float32Convolution(width, 1, 1) if centreness else None
        assert self.last_kinds.bias is not None
        nn.init.normal_(self.last_kinds.weight, std=0.01)
        nn.init.constant_(self.last_kinds.bias, math.log(PRIOR / (1 - PRIOR)))

    def forward(self, picture: Tensor, maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return logits [B, K, h, w] of the kinds, logarithms [B, 4, h, w] of the distances of the
        edges, cells, and logits [B, 1, h, w] of centre-ness, float32."""
        x = F.relu(self.shared(self.neck(picture, maps)))
        edges = F.relu(self.edges(x))
        centre = None if self.last_centre is None else self.last_centre(edges)
        return self.last_kinds(F.relu(self.kinds(x))), self.last_edges(edges), centre

    def loss(self, picture: Tensor, maps: list[Tensor], truth: Truth) -> dict[str, Tensor]:
        kinds, edges, centre = self(picture, maps)
        owner = assign(truth, kinds.shape[2:], self.stride, self.radius)  # [B, h, w], 0 for none
        owned = owner > 0
        which, row, column = owned.nonzero(as_tuple=True)
        mine = owner[owned] - 1
        kind = truth.kind[which, mine] - 1
        counts = torch.bincount(kind, minlength=kinds.shape[1])  # [K]
        weight = 1 / (counts[kind] * (counts > 0).sum())  # sums up to 1
        target = torch.zeros_like(kinds)
        target[which, kind, row, column] = 1
        boxes = truth.boxes[which, mine]
        at = locations(row, column, self.stride)
        said = decode(edges[which, :, row, column], at, self.stride)
        parts = {
            "kind_loss": (focal(kinds, target).sum((0, 2, 3)) / counts.clamp(min=1)).mean(),
            "edge_loss": (weight * (1 - generalized_iou(said, boxes))).sum(),
        }
        if centre is not None:
            goal = centreness(encode(boxes, at, self.stride))
            logits = centre[which, 0, row, column]
            parts["centre_loss"] = F.binary_cross_entropy_with_logits(
                logits, goal, weight, reduction="sum"
            )
        return parts

    def find(self, picture: Tensor, maps: list[Tensor]) -> list[Found]:
        from torchvision.ops import batched_nms  # not everyone has it, and slow to import

        kinds, edges, centre = self(picture, maps)
        height, width = picture.shape[2:]
        sure = kinds.sigmoid() if centre is None else (kinds.sigmoid() * centre.sigmoid()).sqrt()
        found = []
        for scores, distances in zip(sure, edges, strict=True):
            kind, row, column = (scores > self.threshold).nonzero(as_tuple=True)
            score, best = scores[kind, row, column].sort(descending=True, stable=True)
            best, score = best[:MOST_CONSIDERED], score[:MOST_CONSIDERED]
            kind, row, column = kind[best], row[best], column[best]
            at = locations(row, column, self.stride)
            boxes = cut(decode(distances[:, row, column].T, at, self.stride), height, width)
            kept = batched_nms(boxes, score, kind, self.overlap)[: self.most]
            found.append(Found(boxes[kept], score[kept], kind[kept] + 1))
        return found


def assign(truth: Truth, size: tuple[int, ...], stride: int, radius: float) -> Tensor:
    """Return of every location of a map of `size` (h, w) which object it answers for: [B, h, w]
    int64, 0 for none and k + 1 for number k. An object owns the locations that are nearer to its
    centre than `radius` cells and lie inside it, and the nearest in any case; of two owners the
    smaller one counts (Tian et al. 2019)."""
    boxes, (height, width) = truth.boxes, size
    sides = boxes[..., 2:] - boxes[..., :2]  # [B, K, 2] width, height
    size_of = sides.prod(2).masked_fill(truth.kind == 0, torch.inf)
    order = size_of.argsort(dim=1, descending=True, stable=True)  # the smaller, the later
    ordered = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    centre = (ordered[..., 2:] + ordered[..., :2]) / 2
    reach = ((ordered[..., 2:] - ordered[..., :2]) / 2).clamp(stride / 2, max(radius, 0.5) * stride)
    place = torch.arange(max(height, width), device=boxes.device)
    at = locations(place, place, stride)[:, 0]  # [max(h, w)] pixels
    near = (at - centre[..., None]).abs() <= reach[..., None]  # [B, K, 2, max(h, w)]
    number = torch.arange(1, boxes.shape[1] + 1, dtype=torch.int16, device=boxes.device)
    number = number * (truth.kind.gather(1, order) > 0)  # [B, K], 0 for no object
    rows = near[:, :, 1, :height] * number[..., None]  # [B, K, h]
    last = rows[..., None] * near[:, :, 0, None, :width]  # [B, K, h, w]
    last = last.amax(1) if boxes.shape[1] else last.new_zeros(len(boxes), height, width)
    first = order.new_zeros(len(boxes), 1)
    return torch.cat([first, order + 1], 1).gather(1, last.long().flatten(1)).view_as(last)


def locations(row: Tensor, column: Tensor, stride: int) -> Tensor:
    """Return the middles [n, 2] of the cells in these rows and columns [n]: x, y, pixels."""
    return (torch.stack([column, row], 1) + 0.5) * stride


def encode(boxes: Tensor, at: Tensor, stride: int) -> Tensor:
    """Return the logarithms of the distances, cells, of the edges of boxes [n, 4] from the far
    sides of the cells with middles `at` [n, 2] that touch them: [n, 4] left, top, right, bottom."""
    before = at + stride / 2 - boxes[:, :2]
    behind = boxes[:, 2:] - (at - stride / 2)
    return (torch.cat([before, behind], 1) / stride).clamp(1e-6).log()


def decode(distances: Tensor, at: Tensor, stride: int) -> Tensor:
    """Return the boxes [n, 4] that `encode` made `distances` [n, 4] of."""
    before, behind = (distances.clamp(max=FARTHEST).exp() * stride).chunk(2, 1)
    return torch.cat([at + stride / 2 - before, at - stride / 2 + behind], 1)


def centreness(distances: Tensor) -> Tensor:
    """Return how far in the middle of its box a location is, [n] 0..1, given its distances [n, 4]
    as `encode` returns them (Tian et al. 2019)."""
    before, behind = distances.exp().chunk(2, 1)
    return (torch.minimum(before, behind) / torch.maximum(before, behind)).prod(1).sqrt()


def focal(logits: Tensor, target: Tensor) -> Tensor:
    """Return the focal loss (Lin et al. 2017) of each logit: a cross-entropy in which what is said
    right already counts little, for nearly all locations are background."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    share = logits.sigmoid()
    wrong = share + target - 2 * share * target
    weight = ALPHA * target + (1 - ALPHA) * (1 - target)
    return weight * wrong**GAMMA * cross_entropy


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """Return for pairs of boxes [n, 4] the intersection over union, less the share of the least box
    around both that is in neither, [n] -1..1 (Rezatofighi et al. 2019). It tells also boxes apart
    that do not meet."""
    inner = (torch.minimum(one, other)[:, 2:] - torch.maximum(one, other)[:, :2]).clamp(min=0)
    outer = torch.maximum(one, other)[:, 2:] - torch.minimum(one, other)[:, :2]
    common, around = inner.prod(1), outer.prod(1).clamp(min=1e-6)
    union = (area(one) + area(other) - common).clamp(min=1e-6)
    return common / union - (around - union) / around


def area(boxes: Tensor) -> Tensor:
    """Return the area of boxes [..., 4], square pixels."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def cut(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return what of boxes [..., 4] lies in a picture of this size."""
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)
