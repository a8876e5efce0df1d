"""Learns to see without labels, by telling apart what belongs together from what does not.

temporal: which picture comes next among those of a batch, for the whole picture and place by place,
in the manner of ST-DIM (Anand et al. 2019), whose loss is InfoNCE (van den Oord et al. 2018).
siamese: a moment and the next lie close to each other, and those far in time at least a margin
apart (Hadsell et al. 2006; in time, Mobahi et al. 2009). position: which of the eight neighbours
of a patch another one is (Doersch et al. 2015).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Array, Mistake, Range
from rlplay.nets import backbones
from rlplay.nets.heads import Float32Linear
from rlplay.palette import SLATE, SNOW
from rlplay.perception import gallery, neighbours
from rlplay.perception.source import Source
from rlplay.perception.task import Batch, Task

GROUP = 64  # pairs among which the right one is looked for in an examination
LEAST_PLACES = 16  # of the map whose places are compared
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Where the neighbours of a patch are: rows down, columns to the right."""
NUM_KNOWN, NUM_QUERIES, NUM_NEAREST = 300, 5, 5  # of the drawing


@dataclass(frozen=True)
class Config:
    name: Literal["contrast"] = "contrast"
    kind: Literal["temporal", "position", "siamese"] = "temporal"
    """What is to be told apart; position needs pictures only, the others moments in order."""
    encoder: backbones.Config = field(default_factory=backbones.Config)
    """The network from picture to feature maps."""
    features: Annotated[int, Range(1)] = 128
    """Numbers that a whole picture, or a patch, is compared by."""
    margin: Annotated[float, Range(0)] = 1.0
    """Of siamese: how far moments are pushed apart."""
    patch: Annotated[float, Range(0.05, 0.3)] = 0.24
    """Of position: side of a patch, share of the picture's; three and the gaps between them fit."""
    gap: Annotated[float, Range(0, 0.1)] = 0.04
    """Of position: between two patches, share of the picture's side, so that lines that go on do
    not give the neighbour away."""

    def make(self, source: Source) -> Contrast:
        """Build the task. Raises Mistake where it needs moments in order and there are none, and
        where the encoder cannot see the pictures or patches."""
        kinds = {"temporal": Temporal, "siamese": Siamese, "position": Position}
        return kinds[self.kind](self, source)


class Contrast(Task):
    """What the kinds have in common: they answer, and are judged by how often they are right."""

    goal = "accuracy"

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(source)
        self.config = config
        self.encoder = config.encoder.make(source.shape)

    def judged(self, batches: Iterable[Batch]) -> Iterator[tuple[dict[str, float], int]]:
        """Yield means over some examples, by name, and how many they are."""
        raise NotImplementedError

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the means of loss and accuracy over all examples."""
        sums: dict[str, float] = {}
        count = 0
        for means, number in self.judged(batches):
            for name, value in means.items():
                sums[name] = sums.get(name, 0.0) + value * number
            count += number
        return {name: total / count for name, total in sums.items()}

    def sentence(self, metrics: dict[str, float]) -> str:
        return f"right {metrics['accuracy']:.1%} of the time, loss {metrics['loss']:.4f}"

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return rows of a picture and those of the test that the encoder takes for most alike."""
        test = self.source.splits["test"]
        some = np.linspace(0, len(test) - 1, min(NUM_KNOWN, len(test))).astype(int)
        known = torch.from_numpy(self.source.arrays["picture"][test[some]])
        asked = batch["picture"].cpu()
        asked = asked[torch.linspace(0, len(asked) - 1, min(NUM_QUERIES, len(asked))).long()]
        device = batch["picture"].device
        seen = neighbours.features(
            self.encoder, (self.prepared(part.to(device)) for part in known.split(GROUP))
        )
        queries = neighbours.features(self.encoder, [self.prepared(asked.to(device))])
        distance = neighbours.distances(queries, seen).cpu()
        same = (asked[:, None] == known).flatten(2).all(2)
        distance[same] = torch.inf  # what is asked for, where it is among them
        best = neighbours.nearest(distance, NUM_NEAREST)
        cells, captions, inks = [], [], []
        for query, row, far in zip(asked, best, distance, strict=True):
            cells += [query, *known[row]]
            captions += ["query", *(f"{value:.3f}" for value in far[row].tolist())]
            inks += [SNOW] + [SLATE] * len(row)
        drawn = torch.stack(cells).numpy()
        return {"neighbours": gallery.grid(drawn, captions, inks, columns=1 + best.shape[1])}


class Pairs(Contrast):
    """Learns from moments and those that follow them. A batch of B pairs has pictures [2 B]: first
    the moments, then what followed each, so that augmentation changes both."""

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(config, source)
        if "episode" not in source.arrays:
            raise Mistake(
                f"contrast of kind {config.kind} learns from moments in order of time, which the"
                f" data {source.name} are not: set task.kind=position, or data.name=frames"
            )
        self.pairs = {
            split: followed(index, source.arrays["episode"][index])
            for split, index in source.splits.items()
        }
        for split, first in self.pairs.items():
            if not len(first):
                raise Mistake(
                    f"no moment in the split {split!r} of the data {source.name} is followed by"
                    " another of its episode: record longer episodes"
                )
        self.eval()
        with torch.no_grad():
            last = self.encoder(torch.zeros(1, *source.shape))[-1]
        self.train()
        self.whole = Float32Linear(last[0].numel(), config.features)

    def num_examples(self, split: str) -> int:
        return len(self.pairs[split])

    def batches(self, split: str, size: int, order: Array | None = None) -> Iterator[Batch]:
        first = self.pairs[split]
        first = first if order is None else first[order]
        for start in range(0, len(first), size):
            now = first[start : start + size]
            taken = self.source.take(np.concatenate([now, now + 1]))
            yield {name: torch.from_numpy(array) for name, array in taken.items()}

    def seen(self, picture: Tensor) -> list[Tensor]:
        """Return what is compared of pictures [B, C, H, W] uint8: [B, ...] float32 each."""
        raise NotImplementedError

    def compared(self, now: list[Tensor], then: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of moments and their followers as `seen`, and metrics."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        both = [part.chunk(2) for part in self.seen(batch["picture"])]
        return self.compared([pair[0] for pair in both], [pair[1] for pair in both])

    def judged(self, batches: Iterable[Batch]) -> Iterator[tuple[dict[str, float], int]]:
        """Each pair is judged among GROUP, far from each other in time, whatever the batches."""
        parts = [[part.chunk(2) for part in self.seen(b["picture"])] for b in batches]
        now, then = (
            [torch.cat([part[i][side] for part in parts]) for i in range(len(parts[0]))]
            for side in (0, 1)
        )
        num = len(now[0])
        groups = max(1, round(num / GROUP))
        for first in range(groups):
            here = slice(first, num, groups)
            loss, metrics = self.compared([a[here] for a in now], [b[here] for b in then])
            means = {"loss": loss.item(), **{name: m.item() for name, m in metrics.items()}}
            yield means, len(now[0][here])


class Temporal(Pairs):
    """Whole picture against every place of the next one, and each place against itself in the next
    one (Anand et al. 2019). Places are those of the coarsest map that has enough of them.

    What is compared is brought to mean 0 and variance 1 first (Ioffe & Szegedy 2015), unlike there:
    most places show the same all the time, and a few thousand pictures taught nothing without."""

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(config, source)
        _, *size = source.shape
        num_places = [size[0] * size[1] / stride**2 for stride in self.encoder.strides]
        enough = [level for level, num in enumerate(num_places) if num >= LEAST_PLACES]
        self.level = enough[-1] if enough else 0
        num_channels = self.encoder.channels[self.level]
        self.whole_to_place = Float32Linear(config.features, num_channels, bias=False)
        self.place_to_place = Float32Linear(num_channels, num_channels, bias=False)

    def seen(self, picture: Tensor) -> list[Tensor]:
        """Return the whole [B, F], and the places [B, P, C]."""
        maps = self.encoder(self.prepared(picture))
        places = maps[self.level].float().flatten(2)  # [B, C, P]
        return [self.whole(maps[-1].flatten(1)), places.transpose(1, 2)]

    def compared(self, now: list[Tensor], then: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The next picture counts as found where all places together say so."""
        whole, _ = standardized(now[0], then[0])  # [B, F]
        places, next_places = standardized(now[1], then[1])  # [B, P, C]
        places, next_places = places.transpose(0, 1), next_places.permute(1, 2, 0)  # [P, C, B]
        by_whole = self.whole_to_place(whole) @ next_places  # [P, B, B]
        by_place = self.place_to_place(places) @ next_places
        found = (by_whole + by_place).mean(0).argmax(1)
        right = found == torch.arange(len(found), device=found.device)
        parts = {"global_local": info_nce(by_whole), "local_local": info_nce(by_place)}
        return sum(parts.values(), whole.new_zeros(())) / 2, {
            "accuracy": right.float().mean(),
            **parts,
        }


class Siamese(Pairs):
    """Distances of whole pictures; all others of a batch, drawn at random, are far in time."""

    def seen(self, picture: Tensor) -> list[Tensor]:
        return [self.whole(self.encoder(self.prepared(picture))[-1].flatten(1))]

    def compared(self, now: list[Tensor], then: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        distance = torch.cdist(now[0], then[0])  # [B, B]
        loss = margin_loss(distance, self.config.margin)
        right = distance.argmin(1) == torch.arange(len(distance), device=distance.device)
        return loss, {"accuracy": right.float().mean(), "near": distance.diagonal().mean()}


class Position(Contrast):
    """Of three by three patches, cut out anywhere, which of its neighbours each is to the one in
    the middle."""

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(config, source)
        num_channels, *size = source.shape
        self.sides = (round(config.patch * size[0]), round(config.patch * size[1]))
        self.steps = tuple(
            min(side + round(config.gap * length), (length - side) // 2)
            for side, length in zip(self.sides, size, strict=True)
        )
        shape = (num_channels, *self.sides)
        config.encoder.make(shape)  # refuses patches that are too small
        self.eval()
        try:
            with torch.no_grad():
                last = self.encoder(torch.zeros(1, *shape))[-1]
        except RuntimeError as error:
            raise Mistake(
                f"contrast of kind position looks at patches of {self.sides[0]}x{self.sides[1]}"
                f" pixels, which the encoder {config.encoder.name} cannot: set another"
                " task.encoder.name"
            ) from error
        self.train()
        self.whole = nn.Linear(last[0].numel(), config.features)
        self.hidden = nn.Linear(2 * config.features, config.features)
        self.last = Float32Linear(config.features, len(AROUND))

    def forward(self, picture: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the logits [B, 8, 8] float32 of where each neighbour is, in the order of AROUND,
        in pictures [B, C, H, W] uint8."""
        cut = patches(picture, self.places(len(picture), generator), self.sides)
        maps = self.encoder(self.prepared(cut.flatten(0, 1)))
        known = F.relu(self.whole(maps[-1].flatten(1))).unflatten(0, cut.shape[:2])  # [B, 9, F]
        middle = len(AROUND) // 2
        others = torch.cat([known[:, :middle], known[:, middle + 1 :]], 1)
        pairs = torch.cat([known[:, middle : middle + 1].expand_as(others), others], 2)
        return self.last(F.relu(self.hidden(pairs)))

    def places(self, num: int, generator: torch.Generator | None) -> Tensor:
        """Return the first row and column [B, 9, 2] of three by three patches, anywhere in the
        picture, row by row."""
        _, *size = self.source.shape
        grid = torch.cartesian_prod(torch.arange(3), torch.arange(3))  # [9, 2]
        steps, reach = torch.tensor(self.steps), torch.tensor(size) - torch.tensor(self.sides)
        free = reach - 2 * steps
        corner = (torch.rand(num, 2, generator=generator) * (free + 1)).long()
        return corner[:, None] + grid * steps

    def answered(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        logits = self(batch["picture"], generator).flatten(0, 1)
        truth = torch.arange(len(AROUND), device=logits.device).repeat(len(batch["picture"]))
        return F.cross_entropy(logits, truth), (logits.argmax(1) == truth).float().mean()

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, right = self.answered(batch, None)
        return loss, {"accuracy": right}

    def judged(self, batches: Iterable[Batch]) -> Iterator[tuple[dict[str, float], int]]:
        """Patches lie where they lay before."""
        generator = torch.Generator().manual_seed(0)
        for batch in batches:
            loss, right = self.answered(batch, generator)
            yield {"loss": loss.item(), "accuracy": right.item()}, len(batch["picture"])


def followed(index: Array, episode: Array) -> Array:
    """Return those of the numbers `index` [n], in order, whose successor is also among them and of
    the same episode, given the episode [n] of each."""
    return index[:-1][(np.diff(index) == 1) & (np.diff(episode) == 0)]


def standardized(now: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
    """Return features [B, ..., C] of moments and their followers with mean 0 and variance 1 in each
    of C channels over all of them: the same examples, the same numbers, learning or not."""
    both = torch.stack([now, then])
    every = tuple(range(both.ndim - 1))
    variance, mean = torch.var_mean(both, every, correction=0)
    one, other = (both - mean) * (variance + 1e-5).rsqrt()
    return one, other


def info_nce(scores: Tensor) -> Tensor:
    """Return the loss, nats, of scores [..., B, B] where the row i is to be told to belong to the
    column i (van den Oord et al. 2018)."""
    truth = torch.arange(scores.shape[-1], device=scores.device)
    return F.cross_entropy(scores.flatten(0, -2), truth.repeat(scores[..., 0, 0].numel()))


def margin_loss(distance: Tensor, margin: float) -> Tensor:
    """Return the loss of distances [B, B], near ones on the diagonal and all others far (Hadsell et
    al. 2006): half the square of what near ones are apart, and of what far ones lack to the
    margin."""
    near = distance.diagonal().square().mean() / 2
    off = ~torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    lack = (margin - distance[off]).clamp(min=0)
    return near + (lack.square().mean() / 2 if len(lack) else 0)


def patches(picture: Tensor, place: Tensor, sides: tuple[int, int]) -> Tensor:
    """Return the patches [B, N, C, h, w] of pictures [B, C, H, W] whose first rows and columns are
    `place` [B, N, 2]."""
    place = place.to(picture.device)
    rows = place[..., 0, None] + torch.arange(sides[0], device=picture.device)  # [B, N, h]
    columns = place[..., 1, None] + torch.arange(sides[1], device=picture.device)
    which = torch.arange(len(picture), device=picture.device)[:, None, None, None]
    cut = picture.permute(0, 2, 3, 1)[which, rows[..., None], columns[..., None, :]]
    return cut.permute(0, 1, 4, 2, 3)
