"""Feature maps -> a kind for every pixel. Every decoder takes an encoder's maps and the picture,
and returns logits of the picture's size; maps of any sizes, odd ones too, are brought together by
interpolation. A decoder knows neither what the kinds are nor which encoder the maps come from.

FCN (Long, Shelhamer & Darrell 2015), U-Net (Ronneberger, Fischer & Brox 2015) and the context
network of growing dilations (Yu & Koltun 2016). As in all heads the last layer works in float32.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Mistake
from rlplay.nets.backbones import convolution, keep_norms
from rlplay.nets.encoders import Encoder
from rlplay.nets.heads import Float32Convolution

NetworkName = Literal["unet", "fcn32s", "fcn16s", "fcn8s", "dilated"]
NUM_SCORED = {"fcn32s": 1, "fcn16s": 2, "fcn8s": 3}
DILATIONS = (1, 1, 2, 4, 8, 16, 1)  # of Yu & Koltun's context module


def make(
    network: NetworkName, encoder: Encoder, num_inputs: int, num_kinds: int, channels: int
) -> nn.Module:
    """Build the decoder from `encoder` for pictures of `num_inputs` channels. Raises Mistake where
    the encoder has too few maps."""
    if network == "unet":
        return UNet(encoder, num_inputs, num_kinds, channels)
    if network == "dilated":
        return Dilated(encoder, num_kinds, channels)
    num, has = NUM_SCORED[network], len(encoder.channels)
    if has < num:
        fits = [name for name, scored in NUM_SCORED.items() if scored <= has]
        raise Mistake(
            f"{network} adds up the scores of {num} maps, but this encoder has {has}: set"
            f" task.network={fits[-1]}, or another task.encoder.name"
        )
    return FCN(encoder, num_kinds, num)


class FCN(nn.Module):
    """The coarsest maps, each scored on its own; the scores are enlarged to the next finer map's
    size and added, and at last enlarged to the picture's. On a VGG's maps of strides 32, 16 and 8,
    one to three of them are the authors' 32s, 16s and 8s; on maps of other strides, the same
    steps. Enlarging is bilinear and not learned."""

    def __init__(self, encoder: Encoder, num_kinds: int, num_scored: int) -> None:
        super().__init__()
        chosen = encoder.channels[: -num_scored - 1 : -1]  # coarsest first
        self.scores = nn.ModuleList(Float32Convolution(width, num_kinds, 1) for width in chosen)

    def forward(self, maps: list[Tensor], picture: Tensor) -> Tensor:
        """Return logits [B, K, H, W] float32, given the maps and the picture [B, C, H, W], 0..1."""
        first, *others = self.scores
        scored = first(maps[-1])
        for layer, finer in zip(others, reversed(maps[:-1]), strict=False):
            scored = enlarged(scored, finer) + layer(finer)
        return enlarged(scored, picture)


class UNet(nn.Module):
    """From the coarsest map back to the picture: enlarged to the next finer map's size, put beside
    it, and two convolutions; at last beside the picture itself, so that what is one pixel large
    can be told apart."""

    def __init__(self, encoder: Encoder, num_inputs: int, num_kinds: int, channels: int) -> None:
        super().__init__()
        *finer, num = encoder.channels
        self.steps = nn.ModuleList()
        for beside, num_outputs in [*((c, c) for c in reversed(finer)), (num_inputs, channels)]:
            self.steps.append(
                nn.Sequential(
                    convolution(num + beside, num_outputs, 3, 1, norm=True),
                    nn.ReLU(inplace=True),
                    convolution(num_outputs, num_outputs, 3, 1, norm=True),
                    nn.ReLU(inplace=True),
                )
            )
            num = num_outputs
        self.last = Float32Convolution(channels, num_kinds, 1)

    def forward(self, maps: list[Tensor], picture: Tensor) -> Tensor:
        """Return logits [B, K, H, W] float32, given the maps and the picture [B, C, H, W], 0..1."""
        x = maps[-1]
        for step, finer in zip(self.steps, [*reversed(maps[:-1]), picture], strict=True):
            x = step(torch.cat([F.interpolate(x, finer.shape[2:]), finer], 1))
        return self.last(x)


class Dilated(nn.Module):
    """All maps brought to the finest one's size and added up, and then seven convolutions 3 x 3 of
    dilations 1, 1, 2, 4, 8, 16 and 1, each cell of which in the end has seen 67 x 67 cells of that
    map, which never got coarser. The authors' module has no normalization and begins as the
    identity; with normalization it needs no such start."""

    def __init__(self, encoder: Encoder, num_kinds: int, channels: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(num, channels, 1) for num in encoder.channels)
        self.context = nn.Sequential()
        for dilation in DILATIONS:
            layer = nn.Conv2d(
                channels, channels, 3, padding=dilation, dilation=dilation, bias=False
            )
            self.context.extend([layer, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)])
        keep_norms(self)
        self.last = Float32Convolution(channels, num_kinds, 1)

    def forward(self, maps: list[Tensor], picture: Tensor) -> Tensor:
        """Return logits [B, K, H, W] float32, given the maps and the picture [B, C, H, W], 0..1."""
        finest, *coarser = maps
        first, *others = self.enter
        x = first(finest)
        for layer, coarse in zip(others, coarser, strict=True):
            x = x + enlarged(layer(coarse), finest)
        return enlarged(self.last(self.context(x)), picture)


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """Return maps [B, C, h, w] in the height and width of others, interpolated between cells."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)
