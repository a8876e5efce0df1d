"""Observation -> feature maps. Every encoder promises the same: `channels` and `strides` of the
maps that `forward` returns, coarsest last. An encoder knows neither agents nor actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Mistake, Range

if TYPE_CHECKING:
    import gymnasium

Learn = Literal["all", "last", "none"]
"""Which of an encoder's layers learn."""


@dataclass(frozen=True)
class Config:
    name: Literal["mlp", "nips2013", "nature", "impala"] = "nature"
    """mlp for vectors; nips2013 (Mnih et al. 2013), nature (Mnih et al. 2015) and impala (Espeholt
    et al. 2018) for pictures."""
    hidden: tuple[Annotated[int, Range(1)], ...] = (64, 64)
    """Widths of the layers of an mlp."""
    width: Annotated[float, Range(0.1, 16)] = 1
    """Factor on the channels of a picture encoder."""
    first_stride: Literal[4, 2] = 4
    """Stride of the first layer of nips2013 and nature, whose kernel is twice as wide; 2 sees the
    same in pictures of half the size, 42 x 42, for a quarter of the work."""
    weights: str = ""
    """Start from the encoder of this run, of an agent or a perception task: a path, `last` or the
    beginning of a name. Later checkpoints hold all, so that the run is not needed any more."""
    learn: Learn = "all"
    """Which of its layers learn: all, the last one, or none; what lies behind it always does."""
    rate_decay: Annotated[float, Range(0.01, 1)] = 1.0
    """The last layer learns slower by this factor than what lies behind the encoder, and each layer
    toward the input than the one after it. Howard & Ruder 2018: 0.38."""

    def make(self, space: gymnasium.Space) -> Encoder:
        """Build the encoder for observations of `space`. Raises Mistake where it has no picture."""
        return self.build(prepared_shape(space)).paced(self.learn, self.rate_decay)

    def build(self, shape: tuple[int, ...]) -> Encoder:
        if self.name == "mlp":
            return MLP(math.prod(shape), self.hidden)
        if len(shape) != 3:
            raise Mistake(
                f"the {self.name} encoder needs pictures [C, H, W], but observations have shape"
                f" {list(shape)}; set `encoder: {{name: mlp}}`"
            )
        if self.name == "impala":
            encoder, smallest = Impala(shape[0], self.width), 8
        else:
            kind, strides = {"nips2013": (NIPS2013, 5), "nature": (Nature, 9)}[self.name]
            encoder = kind(shape[0], self.width, self.first_stride)
            smallest = strides * self.first_stride  # leaves one pixel after the last layer
        if min(shape[1:]) < smallest:
            raise Mistake(
                f"the {self.name} encoder needs pictures of at least {smallest}x{smallest} pixels,"
                f" not {shape[1]}x{shape[2]}; set `encoder: {{name: mlp}}`"
            )
        return encoder


class Encoder(nn.Module):
    """forward([B, C, H, W]) -> list of maps [B, channels[i], H / strides[i], W / strides[i]]."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    rates: Sequence[tuple[nn.Module, float]] = ()
    """How fast its layers learn, as a share of what lies behind it, for nets/optimize.py; what is
    not told of learns like that."""

    def forward(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def layers_in_order(self) -> list[nn.Module]:
        """Return what it consists of, from the input on: layers, or stages of several."""
        lists = [[*x] if isinstance(x, nn.ModuleList) else [x] for x in self.children()]
        return [layer for some in lists for layer in some]

    def paced(self, learn: Learn, rate_decay: float) -> Self:
        """Let its layers learn as `Config` says; return itself. Those that do not are frozen whole:
        they get no gradient, and their batch normalization keeps its statistics."""
        if learn == "all" and rate_decay == 1:
            return self
        learned = [
            layer for layer in self.layers_in_order() if any(True for _ in layer.parameters())
        ]
        rates = [rate_decay**depth for depth in range(len(learned), 0, -1)]
        num_frozen = {"all": 0, "last": max(0, len(learned) - 1), "none": len(learned)}[learn]
        rates[:num_frozen] = [0.0] * num_frozen
        self.rates = [*zip(learned, rates, strict=True)]
        for layer in learned[:num_frozen]:
            layer.requires_grad_(False)
        return self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for layer, rate in self.rates:
            if not rate:
                layer.eval()
        return self


class MLP(Encoder):
    """Any observation, flattened; its one map is [B, hidden[-1], 1, 1]."""

    def __init__(self, num_inputs: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        widths = (num_inputs, *hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.channels = (widths[-1],)
        self.strides = (1,)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = x.reshape(len(x), -1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return [x[:, :, None, None]]


class Nature(Encoder):
    """The network of Mnih et al. (2015): 84 x 84 -> 20 x 20 -> 9 x 9 -> 7 x 7."""

    layout = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride

    def __init__(self, num_inputs: int, width: float, first_stride: int = 4) -> None:
        super().__init__()
        (first, _, _), *others = self.layout
        layout = ((first, 2 * first_stride, first_stride), *others)
        channels = [num_inputs] + [max(1, round(c * width)) for c, _, _ in layout]
        self.layers = nn.ModuleList(
            Convolution(channels[i], channels[i + 1], kernel, stride)
            for i, (_, kernel, stride) in enumerate(layout)
        )
        self.channels = tuple(channels[1:])
        strides = [stride for _, _, stride in layout]
        self.strides = tuple(math.prod(strides[: i + 1]) for i in range(len(strides)))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for layer in self.layers:
            x = F.relu(layer(x))
            maps.append(x)
        return maps


class Convolution(nn.Conv2d):
    """A convolution without padding. Where its stride divides its kernel and the picture, a CPU
    computes it as one of stride 1 over patches of stride x stride pixels: the same numbers, but
    many channels and short strides are what its kernels are fast at."""

    def forward(self, input: Tensor) -> Tensor:
        stride, kernel = self.stride[0], self.kernel_size[0]
        size = input.shape[2:]
        divides = not any(length % stride for length in (kernel, *size))
        if stride == 1 or not divides or input.device.type != "cpu":
            return super().forward(input)
        weight = patches(self.weight, stride)
        return F.conv2d(patches(input, stride), weight, self.bias)


def patches(x: Tensor, size: int) -> Tensor:
    """Return pictures [B, C, H, W] as [B, size * size * C, H / size, W / size], channels last in
    memory. As torch's pixel_unshuffle but for the order of the channels, and ten times as fast."""
    num, channels, height, width = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(num, height // size, size, width // size, size * channels)
    return rows.transpose(2, 3).flatten(3).permute(0, 3, 1, 2)


class NIPS2013(Nature):
    """The smaller network of Mnih et al. (2013): 84 x 84 -> 20 x 20 -> 9 x 9."""

    layout = ((16, 8, 4), (32, 4, 2))


class Impala(Encoder):
    """The residual network of Espeholt et al. (2018): three stages, each halving the picture."""

    def __init__(self, num_inputs: int, width: float) -> None:
        super().__init__()
        channels = [num_inputs] + [max(1, round(c * width)) for c in (16, 32, 32)]
        self.stages = nn.ModuleList(Stage(channels[i], channels[i + 1]) for i in range(3))
        self.channels = tuple(channels[1:])
        self.strides = (2, 4, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(F.relu(x))
        return maps


class Stage(nn.Module):
    """A convolution, a pooling that halves the picture, and two residual blocks."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_inputs, num_outputs, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(num_outputs) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.first(x), 3, 2, padding=1)
        for block in self.blocks:
            x = block(x)
        return x


class Residual(nn.Module):
    """relu, convolution, relu, convolution, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.one = nn.Conv2d(channels, channels, 3, padding=1)
        self.two = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.relu(self.one(F.relu(x))))


def prepared_shape(space: gymnasium.Space) -> tuple[int, ...]:
    """Return the shape of one observation as the encoder sees it, without the batch."""
    num_values = getattr(space, "n", None)  # of a Discrete space
    return tuple(space.shape or ()) if num_values is None else (int(num_values),)


def prepare(observation: Tensor, space: gymnasium.Space, dtype: torch.dtype) -> Tensor:
    """Return raw observations [B, ...] as the encoder's numbers [B, *prepared_shape]: pictures
    (uint8) in 0..1, Discrete ones one-hot, others as they are."""
    if (num_values := getattr(space, "n", None)) is not None:
        return F.one_hot(observation.long(), int(num_values)).to(dtype)
    if observation.dtype == torch.uint8:
        return observation.to(dtype).mul_(1 / 255)
    return observation.to(dtype)
