"""Pictures through a narrow place and back: an encoder that must keep what matters of them.

Plain (Hinton & Salakhutdinov 2006); denoising, from a noisy picture the clean one (Vincent et al.
2008); inpainting, from one with a hole the whole one (Pathak et al. 2016); variational (Kingma &
Welling 2014), its latent numbers held together by beta (Higgins et al. 2017), so that new pictures
can be drawn from it. Needs no labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Array, Range
from rlplay.nets import backbones
from rlplay.nets.heads import Float32Linear
from rlplay.perception import gallery
from rlplay.perception.source import Source
from rlplay.perception.task import Batch, Task


@dataclass(frozen=True)
class Config:
    name: Literal["autoencode"] = "autoencode"
    kind: Literal["plain", "denoise", "inpaint", "variational"] = "plain"
    """What it is given, and what its latent numbers are."""
    encoder: backbones.Config = field(default_factory=backbones.Config)
    """The network from picture to feature maps; the way back mirrors it."""
    latent: Annotated[int, Range(1)] = 32
    """Numbers that a picture is brought down to."""
    noise: Annotated[float, Range(0, 2)] = 0.3
    """Of denoise: deviation of the noise on every pixel; 1 is from black to white."""
    hole: Annotated[float, Range(0, 1)] = 0.4
    """Of inpaint: side of the square hole, share of the picture's side."""
    beta: Annotated[float, Range(0)] = 1.0
    """Of variational: what a nat of latent information costs beside one of reconstruction."""
    motion: Annotated[float, Range(0)] = 0.0
    """Of stacked moments: how many more pixels one counts for that changes by half of full
    brightness; so that a small ball is not less than what always stands there."""

    def make(self, source: Source) -> Autoencode:
        """Build the task. Raises Mistake where the pictures do not suit the encoder."""
        return Autoencode(self, source)


class Autoencode(Task):
    goal = "loss"
    minimize = True

    def __init__(self, config: Config, source: Source) -> None:
        super().__init__(source)
        self.config = config
        self.encoder = config.encoder.make(source.shape)
        self.eval()
        with torch.no_grad():
            last = self.encoder(torch.zeros(1, *source.shape))[-1]
        self.train()
        num_outputs = config.latent * (2 if config.kind == "variational" else 1)
        self.narrow = Float32Linear(last.numel(), num_outputs)
        self.decoder = Decoder(config.latent, last.shape[1:], source.shape)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits [B, C, H, W] float32 of the brightness of every pixel, and mean and log
        variance [B, latent] of the latent numbers of pictures [B, C, H, W], 0..1; variance 0 where
        it is not variational. While it learns, variational numbers are drawn."""
        narrow = self.narrow(self.encoder(picture.to(self.decoder.dtype))[-1].flatten(1))
        if self.config.kind != "variational":
            return self.decoder(narrow), narrow, torch.full_like(narrow, -math.inf)
        mean, log_variance = narrow.chunk(2, 1)
        log_variance = log_variance.clamp(-20, 20)
        drawn = mean
        if self.training:
            drawn = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decoder(drawn), mean, log_variance

    def damaged(self, clean: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return what of pictures [B, C, H, W], 0..1, the encoder gets to see."""
        config = self.config
        if config.kind == "denoise":
            noise = torch.randn(clean.shape, generator=generator).to(clean.device)
            return (clean + config.noise * noise).clamp(0, 1)
        if config.kind == "inpaint":
            return clean * ~holes(clean, config.hole, generator)
        return clean

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        clean = batch["picture"].float().mul_(1 / 255)
        return self.judged(clean, self.damaged(clean))

    def judged(self, clean: Tensor, seen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, nats a pixel, with its parts: cross-entropy of the brightness, nats a
        pixel; latent information, nats a picture; squared error a pixel."""
        logits, mean, log_variance = self(seen)
        weight = moving(clean, self.config.motion) if self.config.motion else None
        cross_entropy = F.binary_cross_entropy_with_logits(logits, clean, weight)
        metrics = {
            "cross_entropy": cross_entropy,
            "squared_error": F.mse_loss(logits.sigmoid(), clean),
        }
        loss = cross_entropy
        if self.config.kind == "variational":
            information = divergence(mean, log_variance).mean()
            loss = loss + self.config.beta * information / clean[0].numel()
            metrics["information"] = information
        return loss, metrics

    def examine(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Return the means of the loss and its parts over all pictures. Noise and holes are the
        same every time; variational numbers are their means."""
        generator = torch.Generator().manual_seed(0)
        sums: dict[str, float] = {}
        count = 0
        for batch in batches:
            clean = batch["picture"].float().mul_(1 / 255)
            loss, metrics = self.judged(clean, self.damaged(clean, generator))
            for name, value in {"loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0.0) + value.item() * len(clean)
            count += len(clean)
        return {name: total / count for name, total in sums.items()}

    def sentence(self, metrics: dict[str, float]) -> str:
        deviation = math.sqrt(metrics["squared_error"])
        return f"loss {metrics['loss']:.4f} nats a pixel, off by {deviation:.1%} of full brightness"

    def draw(self, batch: Batch) -> dict[str, Array]:
        """Return rows of pictures with what is seen of them, where that is less, and what is made
        of it below; and, if variational, new ones."""
        generator = torch.Generator().manual_seed(0)
        clean = batch["picture"].float().mul_(1 / 255)
        seen = self.damaged(clean, generator)
        made = self(seen)[0].sigmoid()
        rows = [clean, made] if seen is clean else [clean, seen, made]
        columns = min(8, len(clean))
        whole = len(clean) // columns * columns
        parts = [row[first : first + columns] for first in range(0, whole, columns) for row in rows]
        drawn = {"reconstructions": gallery.grid(shown(torch.cat(parts)), columns=columns)}
        if self.config.kind == "variational":
            latent = torch.randn(32, self.config.latent, generator=generator).to(clean.device)
            drawn["samples"] = gallery.grid(shown(self.decoder(latent).sigmoid()))
        return drawn


class Decoder(nn.Module):
    """Latent numbers [B, L] -> logits of the brightness of pictures [B, C, H, W] float32: from a
    map as coarse as the encoder's last, doubled and convolved up to the picture's size."""

    def __init__(
        self, latent: int, last: tuple[int, ...] | torch.Size, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.channels, *start = last
        num_outputs, *end = shape
        num = max(1, round(math.log2(end[0] / start[0])))
        self.start = start
        self.sizes = [  # of the map before each convolution
            [round(a * (b / a) ** (i / num)) for a, b in zip(start, end, strict=True)]
            for i in range(1, num + 1)
        ]
        widths = [self.channels, *(max(16, self.channels // 2**i) for i in range(1, num + 1))]
        self.first = nn.Linear(latent, self.channels * start[0] * start[1])
        self.layers = nn.ModuleList(
            backbones.convolution(widths[i], widths[i + 1], 3, 1, norm=True) for i in range(num)
        )
        self.last = nn.Conv2d(widths[-1], num_outputs, 3, padding=1)

    @property
    def dtype(self) -> torch.dtype:
        return self.first.weight.dtype

    def forward(self, latent: Tensor) -> Tensor:
        x = F.relu(self.first(latent.to(self.dtype))).unflatten(1, (self.channels, *self.start))
        for size, layer in zip(self.sizes, self.layers, strict=True):
            x = F.relu(layer(F.interpolate(x, size)))
        return self.last(x).float()


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence [B], nats, of normal distributions [B, L] from the
    standard one."""
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)


def moving(clean: Tensor, motion: float) -> Tensor:
    """Return the weights [B, 1, H, W] of the pixels of stacked moments [B, C, H, W], 0..1; their
    mean is 1 in every picture."""
    change = clean.amax(1, keepdim=True) - clean.amin(1, keepdim=True)
    weight = 1 + motion * (2 * change).clamp(max=1)
    return weight / weight.mean((2, 3), keepdim=True)


def holes(clean: Tensor, side: float, generator: torch.Generator | None) -> Tensor:
    """Return a square hole [B, 1, H, W] bool, anywhere in each picture."""
    height, width = clean.shape[2:]
    tall, wide = max(1, round(side * height)), max(1, round(side * width))
    place = torch.rand(2, len(clean), generator=generator).to(clean.device)
    top = (place[0] * (height - tall + 1)).long()[:, None]
    left = (place[1] * (width - wide + 1)).long()[:, None]
    row = torch.arange(height, device=clean.device)
    column = torch.arange(width, device=clean.device)
    in_rows = (row >= top) & (row < top + tall)  # [B, H]
    in_columns = (column >= left) & (column < left + wide)  # [B, W]
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


def shown(pictures: Tensor) -> Array:
    """Return pictures 0..1 as uint8."""
    return np.round(pictures.float().cpu().numpy() * 255).astype(np.uint8)
