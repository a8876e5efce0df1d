"""What lies on each square of a board: find the board in the picture, then look closely at it.

The encoder looks three times. From what it sees in each row and column of the picture two layers
tell the board's four edges; it looks at the board alone, brought to one size and place (bilinear,
Jaderberg et al. 2015), every square and a margin, and two more tell how far off the edges are; then
again, between the right ones. Two layers, the same for all squares, name what is there: the second
compares a square with the mean and the greatest of what the first makes of all of them.

The squares' labels teach all of it. Where the board's box is known it teaches to find it; and what
comes after learns from the box, a little shifted, instead of from what was found.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Array
from rlplay.nets.heads import Float32Linear
from rlplay.palette import GREEN, RED
from rlplay.perception import gallery
from rlplay.perception.classify import Axes, wilson
from rlplay.perception.source import Source
from rlplay.perception.task import Batch, Task

if TYPE_CHECKING:
    from rlplay.perception.classify import Config

PLACES = 2  # in a square, across and down, at which it is read
PIXELS = 8  # of a square, across and down, when looked at closely
MARGIN = 1  # squares around the board that are seen with it
LOOSE = 0.15  # squares by which edges that are learned from are shifted, deviation
LARGE = 96  # pixels from which half the size is enough to find a board


class Squares(Task):
    goal = "accuracy"

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(source)
        self.config = config
        self.encoder = config.encoder.make(source.shape)
        self.board = tuple(source.arrays["squares"].shape[1:])  # R, C
        channels, *size = source.shape
        far = [length // 2 if min(size) >= LARGE else length for length in size]
        near = [(num + 2 * MARGIN) * PIXELS for num in self.board]
        self.eval()
        with torch.no_grad():
            from_far = self.encoder(torch.zeros(1, channels, *far))
            from_near = self.encoder(torch.zeros(1, channels, *near))
        self.train()
        hidden = config.hidden or 128
        self.find, self.shift = Edges(from_far, hidden), Edges(from_near, hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.read = nn.Linear(from_near[-1].shape[1] * PLACES**2, hidden)
        self.compare = nn.Linear(3 * hidden, hidden)
        self.last = Float32Linear(hidden, len(source.kinds))

    def forward(self, picture: Tensor) -> Tensor:
        """Return the logits [B, K, R, C] float32 of what lies on the squares in pictures
        [B, C, H, W] uint8."""
        return self.look(picture)[0]

    def look(self, picture: Tensor, known: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return these logits, and the board's edges [B, 4] float32, as found and as corrected:
        left, top, right, bottom, in pictures that reach from -1 to 1. Where edges are `known`, look
        there at once, and correct them."""
        x = self.prepared(picture)
        start = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=picture.device)
        far = F.avg_pool2d(x, 2) if min(x.shape[2:]) >= LARGE else x
        found = start + self.find(self.encoder(far))
        first = found if known is None else known
        maps = self.near(x, first)
        corrected = first + self.shift(maps) * self.square(first)
        if known is None:
            maps = self.near(x, corrected)
        return self.name(maps[-1]), found, corrected

    def near(self, x: Tensor, edges: Tensor) -> list[Tensor]:
        """Return the maps of what lies between edges [B, 4] and around."""
        grid = self.grid(edges, PIXELS, MARGIN)
        seen = F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)
        return self.encoder(seen.to(x.dtype))

    def square(self, edges: Tensor) -> Tensor:
        """Return a square's width and height, twice, [B, 4]."""
        rows, columns = self.board
        size = torch.tensor([columns, rows], device=edges.device)
        return ((edges[:, 2:] - edges[:, :2]) / size).repeat(1, 2)

    def name(self, seen: Tensor) -> Tensor:
        """Return the logits [B, K, R, C] float32 of what a map [B, F, H, W] of the board and its
        margin shows."""
        rows, columns = self.board
        size = ((rows + 2 * MARGIN) * PLACES, (columns + 2 * MARGIN) * PLACES)
        if seen.shape[2:] != size:
            seen = F.adaptive_avg_pool2d(seen, size)
        inner = slice(MARGIN * PLACES, -MARGIN * PLACES)
        cells = (
            seen[:, :, inner, inner].unflatten(2, (rows, PLACES)).unflatten(4, (columns, PLACES))
        )
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(3)  # [B, R, C, F * PLACES * PLACES]
        x = F.relu(self.read(self.dropout(cells)))
        others = torch.cat([x.mean((1, 2)), x.amax((1, 2))], 1)[:, None, None]
        both = torch.cat([x, others.expand(-1, rows, columns, -1)], 3)
        x = F.relu(self.compare(self.dropout(both)))
        return self.last(self.dropout(x)).permute(0, 3, 1, 2)

    def grid(self, edges: Tensor, places: int, margin: int = 0) -> Tensor:
        """Return the places [B, H, W, 2], across and down, that lie spread over the squares between
        edges [B, 4] and over a margin of squares around: of each square `places` each way."""
        shares = [
            (
                (torch.arange((num + 2 * margin) * places, device=edges.device) + 0.5) / places
                - margin
            )
            / num
            for num in self.board
        ]
        down, across = (
            edges[:, i, None] + (edges[:, i + 2] - edges[:, i])[:, None] * share
            for i, share in ((1, shares[0]), (0, shares[1]))
        )
        wide, high = across.shape[1], down.shape[1]
        both = across[:, None, :].expand(-1, high, -1), down[:, :, None].expand(-1, -1, wide)
        return torch.stack(both, 3)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the cross-entropy, nats a square, and where the box is known how far the edges are
        from it, found and corrected, in halves of the picture."""
        box = self.box(batch) if "boxes" in batch else None
        known = None
        if box is not None and self.training:
            known = box + LOOSE * torch.randn_like(box) * self.square(box)
        (logits, *edges), truth = self.look(batch["picture"], known), batch["squares"]
        loss = F.cross_entropy(logits, truth, label_smoothing=self.config.smoothing)
        right = logits.argmax(1) == truth
        metrics = {
            "accuracy": right.float().mean(),
            "boards": right.flatten(1).all(1).float().mean(),
        }
        if box is not None:
            found, corrected = ((side - box).abs().mean() for side in edges)
            loss = loss + found + corrected
            metrics |= {"found": found, "corrected": corrected}
        return loss, metrics

    def box(self, batch: Batch) -> Tensor:
        """Return the true edges [B, 4] of the boards in pictures that reach from -1 to 1."""
        height, width = batch["picture"].shape[2:]
        size = torch.tensor([width, height, width, height], device=batch["boxes"].device)
        return batch["boxes"][:, 0] * 2 / size - 1

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the share of squares that are right, with its 95% interval, the share of boards on
        which all are, and the cross-entropy, nats a square."""
        squares = right = boards = whole = 0
        total = 0.0
        for batch in batches:
            logits, truth = self(batch["picture"]), batch["squares"]
            total += F.cross_entropy(logits, truth, reduction="sum").item()
            same = logits.argmax(1) == truth
            squares, right = squares + same.numel(), right + int(same.sum())
            boards, whole = boards + len(same), whole + int(same.flatten(1).all(1).sum())
        low, high = wilson(right, squares)
        return {
            "accuracy": right / squares,
            "accuracy_low": low,
            "accuracy_high": high,
            "boards": whole / boards,
            "cross_entropy": total / squares,
            "errors": float(squares - right),
            "examples": float(boards),
        }

    def sentence(self, metrics: dict[str, float]) -> str:
        return (
            f"{metrics['accuracy']:.3%} of the squares right, {metrics['errors']:,.0f} wrong; all"
            f" right on {metrics['boards']:.2%} of {metrics['examples']:,.0f} boards"
        )

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return the pictures, enlarged, with a dot on each square where it was found, in red where
        it was misread, and below each how many were."""
        logits, _, edges = self.look(batch["picture"])
        wrong = (logits.argmax(1) != batch["squares"]).cpu().numpy()
        centres = self.grid(edges, 1).cpu().numpy()
        pictures = batch["picture"].cpu().numpy()
        pictures = pictures if pictures.shape[1] == 3 else pictures[:, -1:].repeat(3, 1)
        factor = max(1, -(-SIDE // max(pictures.shape[2:])))
        large = pictures.repeat(factor, 2).repeat(factor, 3)
        height, width = large.shape[2:]
        for picture, board, places in zip(large, wrong, centres, strict=True):
            for misread, (x, y) in zip(board.ravel(), places.reshape(-1, 2), strict=True):
                left, top = int((x + 1) / 2 * width), int((y + 1) / 2 * height)
                half = DOT + 2 * int(misread)
                rows = slice(max(top - half, 0), max(top + half + 1, 0))
                columns = slice(max(left - half, 0), max(left + half + 1, 0))
                picture[:, rows, columns] = np.array(RED if misread else GREEN)[:, None, None]
        counts = wrong.sum((1, 2)).tolist()
        captions = [f"{count} wrong" if count else "right" for count in counts]
        inks = [RED if count else GREEN for count in counts]
        return {"boards": gallery.grid(large, captions, inks)}


class Edges(nn.Module):
    """Maps -> four numbers [B, 4] float32, at first about 0."""

    def __init__(self, maps: list[Tensor], hidden: int) -> None:
        super().__init__()
        self.axes = Axes()
        self.hidden = nn.Linear(self.axes(maps).numel(), hidden)
        self.last = Float32Linear(hidden, 4)
        nn.init.normal_(self.last.weight, std=1e-3)
        nn.init.zeros_(self.last.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        return self.last(F.relu(self.hidden(self.axes(maps))))


SIDE, DOT = 128, 1  # of a picture that is drawn, and half of a dot in it, pixels
