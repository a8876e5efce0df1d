"""Which value each variable of a game's RAM has: one picture, many labels, 256 values each.

As Anand et al. (2019) probe encoders with, but trained together with its encoder. Beside F1 and
accuracy it tells how far off it is where a variable is a place, in pixels of the game's own screen.
A place counts at the moments that show the thing there: `ball_x` while a ball can be seen. A heat
map, with `Config.heat`, learns from those moments alone, so that it always says where.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Array
from rlplay.palette import GREEN, LINE, RED, SLATE
from rlplay.perception import gallery
from rlplay.perception.classify import Classify
from rlplay.perception.probes import f1
from rlplay.perception.source import Source
from rlplay.perception.task import Batch

if TYPE_CHECKING:
    from rlplay.perception.classify import Config

VALUES = 256
NEAR = 2.0  # pixels
UNIT = 8.0  # pixels by which errors of heat maps count as one


class Variables(Classify):
    goal = "f1"

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(config, source, len(source.variables) * VALUES)
        self.names = source.variables
        self.steps = [source.places.get(name, 0.0) for name in self.names]
        stems = [name.rpartition("_")[0] for name in self.names]
        kinds = {kind: number for number, kind in enumerate(source.kinds) if number}
        self.things = [  # the kind of object that a place is of, 0 for none
            kinds.get(stem, kinds.get(stem.removesuffix("s"), 0)) if step else 0
            for stem, step in zip(stems, self.steps, strict=True)
        ]

        self.placed = [i for i, step in enumerate(self.steps) if step]
        self.heat = None
        if config.heat and self.placed:
            vertical = [self.names[i].endswith("_y") for i in self.placed]
            self.heat = Heat(self.encoder.channels, vertical)
        value = torch.arange(VALUES)
        bell = torch.softmax(-(((value - value[:, None]) / max(config.spread, 1e-2)) ** 2) / 2, 1)
        exact = torch.eye(VALUES)
        tables = [bell if step and config.spread else exact for step in self.steps]
        self.targets = torch.stack(tables)  # [V, 256, 256]

    def forward(self, picture: Tensor) -> Tensor:
        """Return the logits [B, 256, V] float32 of the values of each variable."""
        return self.look(picture)[0]

    def look(self, picture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return these logits, and the values [B, P] float32 of the places in heat maps, where
        there are such."""
        maps = self.encoder(self.prepared(picture))
        logits = self.named(maps).unflatten(1, (len(self.names), VALUES)).transpose(1, 2)
        return logits, None if self.heat is None else self.heat(maps)

    def shown(self, batch: Batch) -> Tensor:
        """Return whether the things can be seen that variables [B, V] bool are the places of; true
        where it is not known."""
        kinds = batch.get("kind")
        shown = torch.ones(
            batch["variables"].shape, dtype=torch.bool, device=batch["variables"].device
        )
        for i, thing in enumerate(self.things):
            if thing and kinds is not None:
                shown[:, i] = (kinds == thing).any(1)
        return shown

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean cross-entropy over the variables, nats, and with heat maps the mean of
        how far off they are, in units of eight pixels, Huber's loss."""
        (logits, places), truth = self.look(batch["picture"]), batch["variables"].long()
        self.targets = self.targets.to(truth.device)
        each = torch.arange(len(self.names), device=truth.device)
        target = self.targets[each, truth]  # [B, V, 256]
        loss = F.cross_entropy(
            logits, target.transpose(1, 2), label_smoothing=self.config.smoothing
        )
        metrics = {"accuracy": (logits.argmax(1) == truth).float().mean()}
        if places is not None:
            steps = torch.tensor(self.steps, device=truth.device)[self.placed]
            off, shown = (places - truth[:, self.placed]) * steps, self.shown(batch)[:, self.placed]
            far = F.huber_loss(off / UNIT, torch.zeros_like(off), reduction="none", delta=0.25)
            count = shown.sum().clamp(min=1)
            loss = loss + (far * shown).sum() / count
            metrics["pixels"] = (off.abs() * shown).sum() / count
        return loss, metrics

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the means over the variables of F1, its mean over the values weighted by how often
        they are, and of accuracy, and of the places' absolute errors, pixels; the same for each
        variable alone; of places also the share of moments at which they are off by 2 pixels at
        most; and the cross-entropy, nats."""
        truths, said, errors, shown, total = [], [], [], [], 0.0
        for batch in batches:
            (logits, places), truth = self.look(batch["picture"]), batch["variables"].long()
            total += F.cross_entropy(logits, truth).item() * len(truth)
            truths.append(truth.cpu().numpy())
            said.append(logits.argmax(1).cpu().numpy())
            value = median(logits).float()
            if places is not None:
                value[:, self.placed] = places
            errors.append((value - truth).abs().cpu().numpy())
            shown.append(self.shown(batch).cpu().numpy())
        truth, value, error, seen = map(np.concatenate, (truths, said, errors, shown))
        metrics: dict[str, float] = {}
        for i, name in enumerate(self.names):
            metrics[f"f1/{name}"] = f1(truth[:, i], value[:, i])[0]
            metrics[f"accuracy/{name}"] = float((truth[:, i] == value[:, i]).mean())
            counts = seen[:, i]
            if self.steps[i] and counts.any():
                off = error[counts, i] * self.steps[i]
                metrics[f"pixels/{name}"] = float(off.mean())
                metrics[f"near/{name}"] = float((off <= NEAR).mean())
        for name in ("f1", "accuracy", "pixels", "near"):
            each = [value for key, value in metrics.items() if key.startswith(f"{name}/")]
            if each:
                metrics[name] = float(np.mean(each))
        return {**metrics, "cross_entropy": total / len(truth), "examples": float(len(truth))}

    def sentence(self, metrics: dict[str, float]) -> str:
        found = f"F1 {metrics['f1']:.3f}, accuracy {metrics['accuracy']:.2%}"
        off = {key: value for key, value in metrics.items() if key.startswith("pixels/")}
        if not off:
            return found
        worst = max(off, key=lambda key: off[key])
        return (
            f"{found}; places off by {metrics['pixels']:.2f} pixels on average,"
            f" {worst.partition('/')[2]} most, by {off[worst]:.2f}"
        )

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return, for each variable, a chart of the values said, upward, above the true ones: green
        where they are the same, else red."""
        said, truth = self(batch["picture"]).argmax(1).cpu(), batch["variables"].long().cpu()
        charts = np.empty((len(self.names), 3, VALUES, VALUES), np.uint8)
        charts[:] = np.array(LINE)[:, None, None]
        places = np.arange(VALUES)
        charts[:, :, VALUES - 1 - places, places] = np.array(SLATE)[:, None]
        for chart, upward, across in zip(charts, said.T.tolist(), truth.T.tolist(), strict=True):
            for y, x in zip(upward, across, strict=True):
                top, left = max(VALUES - 1 - y - 2, 0), max(x - 2, 0)
                ink = np.array(GREEN if x == y else RED)[:, None, None]
                chart[:, top : top + 5, left : left + 5] = ink
        return {"values": gallery.grid(charts, self.names, columns=4)}


class Heat(nn.Module):
    """Maps [B, C, H, W] -> values [B, P] of the places of P things: of each, a map tells where it
    may be, whose middle, across or down, is brought to the values by a slope and an offset."""

    keep_float32 = True

    def __init__(self, channels: tuple[int, ...], vertical: list[bool]) -> None:
        super().__init__()
        self.register_buffer("vertical", torch.tensor(vertical), persistent=False)
        self.likely = nn.Conv2d(sum(channels), len(vertical), 1)
        self.slope = nn.Parameter(torch.ones(len(vertical)))
        self.offset = nn.Parameter(torch.ones(len(vertical)))

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[2:]
        same = [maps[0], *(F.interpolate(m, size, mode="bilinear") for m in maps[1:])]
        likely = self.likely(torch.cat(same, 1).float())  # [B, P, H, W]
        share = torch.softmax(likely.flatten(2), 2).unflatten(2, size)
        y, x = (torch.linspace(-1, 1, num, device=share.device) for num in size)
        middle = torch.where(self.get_buffer("vertical"), share.sum(3) @ y, share.sum(2) @ x)
        return 100 * (self.offset + self.slope * middle)


def median(logits: Tensor) -> Tensor:
    """Return the value [B, V] int64 below and above which lies half of what logits [B, 256, V]
    hold for likely: of all values the one that is off by least."""
    share = torch.softmax(logits, 1).cumsum(1)
    return (share < 0.5).sum(1).clamp(max=logits.shape[1] - 1)
