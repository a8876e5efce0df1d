"""Which value each variable of a game's RAM has: one picture, many labels, 256 values each.

As Anand et al. (2019) probe encoders with, but trained together with its encoder. Beside F1 and
accuracy it tells how far off it is where a variable is a place, in pixels of the game's own screen.
A place counts at the moments that show the thing there: `ball_x` while a ball can be seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
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

        value = torch.arange(VALUES)
        bell = torch.softmax(-(((value - value[:, None]) / max(config.spread, 1e-2)) ** 2) / 2, 1)
        exact = torch.eye(VALUES)
        tables = [bell if step and config.spread else exact for step in self.steps]
        self.targets = torch.stack(tables)  # [V, 256, 256]

    def forward(self, picture: Tensor) -> Tensor:
        """Return the logits [B, 256, V] float32 of the values of each variable."""
        return super().forward(picture).unflatten(1, (len(self.names), VALUES)).transpose(1, 2)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean cross-entropy over the variables, nats."""
        logits, truth = self(batch["picture"]), batch["variables"].long()
        self.targets = self.targets.to(truth.device)
        each = torch.arange(len(self.names), device=truth.device)
        target = self.targets[each, truth]  # [B, V, 256]
        loss = F.cross_entropy(
            logits, target.transpose(1, 2), label_smoothing=self.config.smoothing
        )
        return loss, {"accuracy": (logits.argmax(1) == truth).float().mean()}

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the means over the variables of F1, its mean over the values weighted by how often
        they are, and of accuracy, and of the places' absolute errors, pixels; the same for each
        variable alone; of places also the share of moments at which they are off by 2 pixels at
        most; and the cross-entropy, nats."""
        truths, said, errors, shown, total = [], [], [], [], 0.0
        for batch in batches:
            logits, truth = self(batch["picture"]), batch["variables"].long()
            total += F.cross_entropy(logits, truth).item() * len(truth)
            truths.append(truth.cpu().numpy())
            said.append(logits.argmax(1).cpu().numpy())
            errors.append((median(logits) - truth).abs().cpu().numpy())
            kinds = batch["kind"].cpu().numpy() if "kind" in batch else np.zeros((len(truth), 1))
            shown.append(np.stack([(kinds == thing).any(1) for thing in self.things], 1))
        truth, value, error, seen = map(np.concatenate, (truths, said, errors, shown))
        metrics: dict[str, float] = {}
        for i, name in enumerate(self.names):
            metrics[f"f1/{name}"] = f1(truth[:, i], value[:, i])[0]
            metrics[f"accuracy/{name}"] = float((truth[:, i] == value[:, i]).mean())
            counts = seen[:, i] if self.things[i] else np.ones(len(truth), bool)
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


def median(logits: Tensor) -> Tensor:
    """Return the value [B, V] int64 below and above which lies half of what logits [B, 256, V]
    hold for likely: of all values the one that is off by least."""
    share = torch.softmax(logits, 1).cumsum(1)
    return (share < 0.5).sum(1).clamp(max=logits.shape[1] - 1)
