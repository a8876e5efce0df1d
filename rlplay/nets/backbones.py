"""The encoders of computer vision, with the same promise as those of the agents: `channels` and
`strides` of the maps that `forward` returns, coarsest last.

LeNet-like (LeCun et al. 1998), AlexNet-like (Krizhevsky et al. 2012), VGG-11 (Simonyan & Zisserman
2015), ResNets (He et al. 2016), and every backbone of timm. Pictures smaller than 64 pixels keep
their size at first: a ResNet begins with a short kernel and no pooling, as its authors did for
CIFAR. Batch normalization stays in float32 whatever the network computes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import Tensor, nn

from rlplay.core import Mistake, Range, nearest
from rlplay.nets import encoders
from rlplay.nets.encoders import Encoder

Norm = Literal["batch", "none"]
SMALL = 64  # pixels
Layers = tuple[tuple[int, int, int, int], ...]
"""Of a stage: channels, kernel and stride of its convolutions, and what the last is pooled by."""


@dataclass(frozen=True)
class Config:
    name: Literal[
        "lenet", "small", "alexnet", "vgg11", "resnet18", "resnet50", "timm",
        "mlp", "nips2013", "nature", "impala",
    ] = "lenet"  # fmt: skip
    """lenet is the lecture's net for MNIST, two convolutions 5 x 5; small three of 3 x 3, for
    pictures as small as 8 x 8; timm any backbone of that library; mlp, nips2013, nature and impala
    the agents' own."""
    backbone: str = "resnet18"
    """Of timm: the backbone's name there, such as convnext_atto."""
    pretrained: bool = False
    """Of timm: fetch the weights that it was trained to."""
    norm: Norm = "batch"
    """Batch normalization after each convolution (Ioffe & Szegedy 2015), of lenet, small, alexnet
    and vgg11; ResNets always have it, the agents' own never."""
    width: Annotated[float, Range(0.1, 16)] = 1
    """Factor on the channels."""
    hidden: tuple[Annotated[int, Range(1)], ...] = (64, 64)
    """Widths of the layers of an mlp."""
    first_stride: Literal[4, 2] = 4
    """Stride of the first layer of nips2013 and nature."""
    weights: str = ""
    """Start from the encoder of this run, of an agent or a perception task: a path, `last` or the
    beginning of a name. Later checkpoints hold all, so that the run is not needed any more."""
    learn: encoders.Learn = "all"
    """Which of its layers, or stages of several, learn: all, the last one, or none; what lies
    behind it always does."""
    rate_decay: Annotated[float, Range(0.01, 1)] = 1.0
    """The last of them learns slower by this factor than what lies behind the encoder, and each
    toward the input than the one after it. Howard & Ruder 2018: 0.38."""

    def make(self, shape: tuple[int, int, int]) -> Encoder:
        """Build the encoder of pictures [C, H, W]. Raises Mistake where they are too small, timm is
        missing, or it does not know the backbone."""
        return self.build(shape).paced(self.learn, self.rate_decay)

    def build(self, shape: tuple[int, int, int]) -> Encoder:
        channels, *size = shape
        if self.name == "timm":
            return Timm(channels, self.backbone, self.pretrained)
        if self.name in ("mlp", "nips2013", "nature", "impala"):
            config = encoders.Config(self.name, self.hidden, self.width, self.first_stride)
            return config.make(Box(0, 255, shape, np.uint8))
        if self.name in ("resnet18", "resnet50"):
            blocks = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}[self.name]
            wide = self.name == "resnet50"
            return ResNet(channels, blocks, wide, self.width, small=min(size) < SMALL)
        stages = STAGES[self.name]
        encoder = Plain(channels, stages, self.norm, self.width)
        if min(size) < encoder.strides[-1]:
            raise Mistake(
                f"the {self.name} encoder needs pictures of at least {encoder.strides[-1]} pixels"
                f" a side, not {size[0]}x{size[1]}; set data.size={SMALL}, or another"
                " task.encoder.name"
            )
        return encoder


STAGES: dict[str, tuple[Layers, ...]] = {
    # channels, kernel, stride, pool
    "lenet": (((16, 5, 1, 2),), ((32, 5, 1, 2),)),
    "small": (((32, 3, 1, 1), (64, 3, 1, 2)), ((64, 3, 1, 2),)),
    "alexnet": (
        ((64, 11, 4, 2),),
        ((192, 5, 1, 2),),
        ((384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 2)),
    ),
    "vgg11": (
        ((64, 3, 1, 2),),
        ((128, 3, 1, 2),),
        ((256, 3, 1, 1), (256, 3, 1, 2)),
        ((512, 3, 1, 1), (512, 3, 1, 2)),
        ((512, 3, 1, 1), (512, 3, 1, 2)),
    ),
}


class Plain(Encoder):
    """Stages of convolutions, one after the other, each stage's last one pooled."""

    def __init__(
        self, num_inputs: int, stages: tuple[Layers, ...], norm: Norm, width: float
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        channels, strides, total = [], [], 1
        for layers in stages:
            parts: list[nn.Module] = []
            for planes, kernel, stride, pool in layers:
                num_outputs = max(1, round(planes * width))
                parts += [convolution(num_inputs, num_outputs, kernel, stride, norm == "batch")]
                parts += [nn.ReLU(inplace=True)]
                parts += [nn.MaxPool2d(pool)] if pool > 1 else []
                num_inputs, total = num_outputs, total * stride * pool
            self.stages.append(nn.Sequential(*parts))
            channels.append(num_inputs)
            strides.append(total)
        self.channels, self.strides = tuple(channels), tuple(strides)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ResNet(Encoder):
    """Four stages of residual blocks; all but the first halve the picture. `wide` blocks have three
    convolutions and four times the channels at their ends."""

    def __init__(
        self, num_inputs: int, blocks: tuple[int, ...], wide: bool, width: float, small: bool
    ) -> None:
        super().__init__()
        planes = [max(1, round(64 * 2**i * width)) for i in range(len(blocks))]
        growth = 4 if wide else 1
        kernel, stride = (3, 1) if small else (7, 2)
        self.first = nn.Sequential(
            convolution(num_inputs, planes[0], kernel, stride, norm=True),
            nn.ReLU(inplace=True),
            nn.Identity() if small else nn.MaxPool2d(3, 2, padding=1),
        )
        self.stages = nn.ModuleList()
        num_inputs = planes[0]
        for i, (num, inside) in enumerate(zip(blocks, planes, strict=True)):
            stage = nn.Sequential()
            for j in range(num):
                halves = 2 if i > 0 and j == 0 else 1
                stage.append(Residual(num_inputs, inside, inside * growth, halves, wide))
                num_inputs = inside * growth
            self.stages.append(stage)
        self.channels = tuple(inside * growth for inside in planes)
        self.strides = tuple((1 if small else 4) * 2**i for i in range(len(blocks)))

    def forward(self, x: Tensor) -> list[Tensor]:
        x, maps = self.first(x), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class Residual(nn.Module):
    """Convolutions, added to what came in, which is brought to their shape where it must be."""

    def __init__(
        self, num_inputs: int, inside: int, num_outputs: int, stride: int, wide: bool
    ) -> None:
        super().__init__()
        if wide:
            layers = [(num_inputs, inside, 1, 1), (inside, inside, 3, stride)]
            layers += [(inside, num_outputs, 1, 1)]
        else:
            layers = [(num_inputs, inside, 3, stride), (inside, num_outputs, 3, 1)]
        self.layers = nn.Sequential()
        for i, layer in enumerate(layers):
            self.layers.extend([nn.ReLU(inplace=True)] * (i > 0))
            self.layers.append(convolution(*layer, norm=True))
        self.shortcut = nn.Identity()
        if stride > 1 or num_inputs != num_outputs:
            self.shortcut = convolution(num_inputs, num_outputs, 1, stride, norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.shortcut(x))


class Timm(Encoder):
    """A backbone of timm. Sees 0..1 like all encoders, and itself brings that to what the backbone
    was trained on."""

    def __init__(self, num_inputs: int, name: str, pretrained: bool) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise Mistake(
                "the encoder timm needs the module 'timm', which is not installed; type"
                " `pip install -e '.[perception]'` in the project's folder"
            ) from error
        if name not in timm.list_models():
            hint = nearest(name, timm.list_models()) or "; see timm.list_models()"
            raise Mistake(f"timm has no backbone called {name!r}{hint}")
        try:
            self.net: Any = timm.create_model(
                name, pretrained=pretrained, in_chans=num_inputs, features_only=True
            )
        except (RuntimeError, AttributeError, ValueError) as error:
            raise Mistake(f"timm's {name} gives no maps to learn from: take another one") from error
        except OSError as error:
            raise Mistake(
                f"the weights of timm's {name} could not be fetched; set"
                " task.encoder.pretrained=false"
            ) from error
        self.channels = tuple(self.net.feature_info.channels())
        self.strides = tuple(self.net.feature_info.reduction())
        trained_on = self.net.pretrained_cfg
        for key in ("mean", "std"):
            values = torch.tensor(trained_on.get(key, (0.5,) * 3)).reshape(1, -1, 1, 1)
            fits = values if num_inputs == 3 else values.mean(1, keepdim=True)
            self.register_buffer(key, fits, persistent=False)
        keep_norms(self)

    def layers_in_order(self) -> list[nn.Module]:
        return [*self.net.children()]

    def forward(self, x: Tensor) -> list[Tensor]:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return list(self.net((x - mean) / std))


def convolution(
    num_inputs: int, num_outputs: int, kernel: int, stride: int, norm: bool
) -> nn.Module:
    """Return a convolution that keeps the picture's size but for its stride."""
    layer = nn.Conv2d(num_inputs, num_outputs, kernel, stride, padding=kernel // 2, bias=not norm)
    return keep_norms(nn.Sequential(layer, nn.BatchNorm2d(num_outputs))) if norm else layer


def keep_norms(module: nn.Module) -> nn.Module:
    """Mark the batch normalization in `module` to stay in float32 (see nets/optimize)."""
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.keep_float32 = True  # pyright: ignore[reportArgumentType]
    return module
