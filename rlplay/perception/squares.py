"""What lies on each square of a board: find the board in the picture, then read square by square.

One layer tells the board's four edges from what the encoder sees in each row and column; then the
encoder's maps are looked up at places spread over every square (bilinear, Jaderberg et al. 2015),
and two layers, the same for all squares, name what is there. The squares' labels teach both, and
the board's box teaches the first where it is known.
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

PLACES = 3  # in a square, across and down


class Squares(Task):
    goal = "accuracy"

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(source)
        self.config = config
        self.encoder = config.encoder.make(source.shape)
        self.board = tuple(source.arrays["squares"].shape[1:])  # R, C
        self.eval()
        with torch.no_grad():
            maps = self.encoder(torch.zeros(1, *source.shape))
        self.train()
        width = sum(found.shape[1] for found in maps) * PLACES**2
        hidden = config.hidden or width
        self.axes = Axes()
        self.find = nn.Linear(self.axes(maps[-1:]).numel(), config.hidden or 128)
        self.edges = Float32Linear(config.hidden or 128, 4)
        nn.init.normal_(self.edges.weight, std=1e-3)
        nn.init.zeros_(self.edges.bias)  # at first the whole picture
        self.dropout = nn.Dropout(config.dropout)
        self.read = nn.Linear(width, hidden)
        self.last = Float32Linear(hidden, len(source.kinds))

    def forward(self, picture: Tensor) -> Tensor:
        """Return the logits [B, K, R, C] float32 of what lies on the squares in pictures
        [B, C, H, W] uint8."""
        return self.look(picture)[0]

    def look(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return these logits, and the board's edges [B, 4] float32: left, top, right, bottom, in
        pictures that reach from -1 to 1."""
        maps = self.encoder(self.prepared(picture))
        found = F.relu(self.find(self.axes(maps[-1:])))
        start = torch.tensor([-1.0, -1.0, 1.0, 1.0], device=picture.device)
        edges = start + self.edges(self.dropout(found))
        grid = self.grid(edges)
        seen = torch.cat([F.grid_sample(m.float(), grid, align_corners=False) for m in maps], 1)
        rows, columns = self.board
        cells = seen.unflatten(2, (rows, PLACES)).unflatten(4, (columns, PLACES))
        cells = cells.permute(0, 2, 4, 1, 3, 5).flatten(3)  # [B, R, C, channels * places]
        x = F.relu(self.read(self.dropout(cells.to(self.read.weight.dtype))))
        return self.last(self.dropout(x)).permute(0, 3, 1, 2), edges

    def grid(self, edges: Tensor) -> Tensor:
        """Return the places [B, R * PLACES, C * PLACES, 2] across and down that lie spread over the
        squares between edges [B, 4]."""
        shares = [
            (torch.arange(num * PLACES, device=edges.device) + 0.5) / (num * PLACES)
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
        from it, in halves of the picture."""
        (logits, edges), truth = self.look(batch["picture"]), batch["squares"]
        loss = F.cross_entropy(logits, truth, label_smoothing=self.config.smoothing)
        right = logits.argmax(1) == truth
        metrics = {
            "accuracy": right.float().mean(),
            "boards": right.flatten(1).all(1).float().mean(),
        }
        if "boxes" in batch:
            height, width = batch["picture"].shape[2:]
            size = torch.tensor([width, height, width, height], device=edges.device)
            off = (edges - (batch["boxes"][:, 0] * 2 / size - 1)).abs().mean()
            loss, metrics["edges"] = loss + off, off
        return loss, metrics

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
        logits, edges = self.look(batch["picture"])
        wrong = (logits.argmax(1) != batch["squares"]).cpu().numpy()
        centres = self.grid(edges)[:, PLACES // 2 :: PLACES, PLACES // 2 :: PLACES].cpu().numpy()
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


SIDE, DOT = 128, 1  # of a picture that is drawn, and half of a dot in it, pixels
