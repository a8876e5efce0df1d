"""What the units of an encoder look for: the filters of its first layer, and for any layer the
patches of pictures that excite a unit most (Zeiler & Fergus 2014). Knows neither tasks nor agents.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from rlplay.core import Array, Mistake
from rlplay.nets.encoders import Encoder

BATCH = 64  # pictures at once
ROOM = 2.4  # times as large a picture has room for what units see of this one


def first_filters(encoder: Encoder, num_channels: int) -> Array | None:
    """Return the weights of the first convolution, [K, C, k, k]; None where there is none, or it
    does not see the picture's channels, as the patches of a transformer may not."""
    for part in encoder.modules():
        if isinstance(part, nn.Conv2d):
            weight = part.weight.detach().float().cpu().numpy()
            return weight if weight.shape[1] == num_channels else None
    return None


class Field(NamedTuple):
    """Which pixels a unit of a map sees: `size` of them down and along, and the unit in row i from
    the pixel `start` + i * `stride` on, which lies outside of the picture where it is padded."""

    size: tuple[int, int]
    start: tuple[int, int]
    stride: tuple[int, int]

    def place(self, row: int, column: int) -> tuple[int, int]:
        """Return the top and the left pixel that a unit sees."""
        return (
            self.start[0] + row * self.stride[0],
            self.start[1] + column * self.stride[1],
        )


class Linear(TorchFunctionMode):
    """Computes means where a network takes maxima, and nothing where it cuts off."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (F.relu, F.relu_, torch.relu, torch.relu_):
            return args[0]
        if func in (F.max_pool2d, torch.max_pool2d):
            for name in ("dilation", "return_indices"):
                kwargs.pop(name, None)
            return F.avg_pool2d(*args, **kwargs)
        return func(*args, **kwargs)


@torch.enable_grad()
def receptive_field(encoder: Encoder, shape: tuple[int, int, int], layer: int) -> Field:
    """Return what the units of a layer's map see of pictures of this shape; all of it where that is
    more than there is. Found by asking a copy with positive weights, where nothing cancels, on
    which pixels of a larger picture a unit in its middle depends."""
    whole = Field(shape[1:], (0, 0), (0, 0))
    if any(isinstance(part, nn.Linear) for part in encoder.modules()):
        return whole
    twin = copy.deepcopy(encoder).cpu().eval().requires_grad_(False)
    random = torch.Generator().manual_seed(0)
    for name, tensor in twin.state_dict().items():
        if tensor.is_floating_point():
            values = 0.5 + torch.rand(tensor.shape, generator=random)
            fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 1
            tensor.copy_(values / fan_in if name.endswith("weight") else values)
    height, width = (round(ROOM * length) for length in shape[1:])
    picture = torch.rand(1, shape[0], height, width, generator=random).requires_grad_()
    with Linear():
        maps = twin.float()(picture)[layer][0].sum(0)  # [h, w]
    row, column = maps.shape[0] // 2 - 1, maps.shape[1] // 2 - 1
    top, bottom, left, right = seen(maps[row, column], picture)
    if top == 0 or left == 0 or bottom - top > shape[1] or right - left > shape[2]:
        return whole
    below, _, beside, _ = seen(maps[row + 1, column + 1], picture)
    stride = (below - top, beside - left)
    start = (top - row * stride[0], left - column * stride[1])
    return Field((bottom - top, right - left), start, stride)


def seen(unit: Tensor, picture: Tensor) -> tuple[int, int, int, int]:
    """Return the edges of what a unit depends on: top, bottom, left, right, pixels."""
    (slope,) = torch.autograd.grad(unit, picture, retain_graph=True)
    rows, columns = (slope[0].abs().sum(0) > 0).nonzero(as_tuple=True)
    return (
        int(rows.min()),
        int(rows.max()) + 1,
        int(columns.min()),
        int(columns.max()) + 1,
    )


class Exciting(NamedTuple):
    """Of one unit."""

    unit: int
    patches: Array  # [n, C, h, w] uint8, most exciting first, black beyond the picture's edge
    activations: Array  # [n]
    places: Array  # [n, 3] int64, the picture's number, row and column of the unit on the map


class Layer(NamedTuple):
    """What was found of a layer."""

    number: int
    num_units: int
    num_silent: int
    """Units that nothing excited."""
    field: Field
    units: list[Exciting]


@torch.no_grad()
def exciting(
    encoder: Encoder, pictures: Array, layer: int, num_units: int, num_patches: int
) -> Layer:
    """Return for the `num_units` most excited units of a layer the patches of pictures
    [n, C, H, W] uint8 that excite them most, at most one of every picture. Raises Mistake where the
    encoder has no such layer."""
    num_layers = len(encoder.channels)
    if not -num_layers <= layer < num_layers:
        raise Mistake(
            f"the encoder has no layer {layer}: --layers takes numbers from 0 to {num_layers - 1},"
            " the first layer's being 0"
        )
    number = layer % num_layers
    first = next(encoder.parameters())
    best, where, width = [], [], 0
    for start in range(0, len(pictures), BATCH):
        x = torch.from_numpy(pictures[start : start + BATCH]).to(first.device, first.dtype) / 255
        features = encoder(x)[number]
        width = features.shape[3]
        value, index = features.float().flatten(2).max(2)  # [B, K]
        best.append(value.cpu().numpy())
        where.append(index.cpu().numpy())
    height, place = np.concatenate(best), np.concatenate(where)  # [n, K]
    field = receptive_field(encoder, pictures.shape[1:], number)
    order = np.argsort(-height, axis=0, kind="stable")[:num_patches]  # [n', K]
    peak = np.take_along_axis(height, order, 0).mean(0)  # [K]
    silent = height.max(0) <= height.min(0)  # the same for every picture, as a dead relu's 0
    loudest = [unit for unit in np.argsort(-peak, kind="stable") if not silent[unit]]
    units = []
    for unit in sorted(loudest[:num_units]):
        rows, columns = np.divmod(place[order[:, unit], unit], width)
        places = np.stack([order[:, unit], rows, columns], 1)
        patches = np.stack([cut(pictures[n], field, r, c) for n, r, c in places.tolist()])
        units.append(Exciting(int(unit), patches, height[order[:, unit], unit], places))
    return Layer(number, height.shape[1], int(silent.sum()), field, units)


def cut(picture: Array, field: Field, row: int, column: int) -> Array:
    """Return what a unit sees of a picture [C, H, W], black beyond its edge."""
    (top, left), (tall, wide) = field.place(row, column), field.size
    patch = np.zeros((len(picture), tall, wide), picture.dtype)
    _, height, width = picture.shape
    rows = slice(max(top, 0), min(top + tall, height))
    columns = slice(max(left, 0), min(left + wide, width))
    down = slice(rows.start - top, rows.stop - top)
    along = slice(columns.start - left, columns.stop - left)
    patch[:, down, along] = picture[:, rows, columns]
    return patch
