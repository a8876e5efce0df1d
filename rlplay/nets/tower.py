"""Boards -> what a search asks a network: a residual tower (He et al. 2016) with the two heads of
AlphaZero (Silver et al. 2018), and its copy for playing, which only answers, as fast as it can.

The value is one number, a logit of the share of the points that the player who moves will get: 1
for a win, 0.5 for a draw, 0 for a loss. Trained by cross-entropy like the policy, its gradient does
not die where the answer is clear but wrong, as that of a squared error behind a tanh does; and
unlike three classes, win, draw and loss, its target can be any mixture of a game's result and the
value that a search has found. It knows neither rules nor search.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.nets.heads import Float32Linear
from rlplay.nets.optimize import convert

NormName = Literal["batch", "none"]
VALUE_PLANES, VALUE_HIDDEN, POLICY_PLANES = 8, 64, 16


class Tower(nn.Module):
    """Planes [N, C, H, W] -> logits of the moves [N, A] float32 and of the points [N] float32.

    Without `norm`, each block begins as the identity and its gradients as small as the number of
    blocks asks for (Zhang et al. 2019, "Fixup"), which trains about as well, and faster.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_actions: int,
        *,
        blocks: int,
        channels: int,
        norm: NormName = "none",
        global_pooling: bool = False,
    ) -> None:
        super().__init__()
        planes, height, width = shape
        self.first = Convolution(planes, channels, 3, norm)
        self.blocks = nn.ModuleList(
            Block(channels, norm, pools=global_pooling and i % 2 == 1) for i in range(blocks)
        )
        num_cells = height * width
        by_cell = num_cells <= num_actions < 2 * num_cells
        head = CellPolicy if by_cell else FlatPolicy
        self.policy = head(channels, num_cells, num_actions, norm)
        self.value = Value(channels, num_cells, norm)
        self.initialize()

    def forward(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.first.convolution.weight.dtype
        x = self.first(planes.to(dtype, memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x)
        return self.policy(x), self.value(x)

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw the weights, so that all moves begin alike and every board as a draw."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                assert part.bias is not None
                nn.init.zeros_(part.bias)
        for part in self.modules():
            if isinstance(part, Float32Linear):  # the last ones
                nn.init.zeros_(part.weight)
            if isinstance(part, Block):
                part.initialize(len(self.blocks))


class Convolution(nn.Module):
    """A convolution, a norm, what is to be added, relu: [N, C, H, W] -> [N, D, H, W]."""

    def __init__(self, num_inputs: int, num_outputs: int, size: int, norm: NormName) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(num_inputs, num_outputs, size, padding=size // 2)
        self.norm = Float32BatchNorm(num_outputs) if norm == "batch" else None
        self.packed: Tensor | None = None  # the weights as the processor's library wants them

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        if self.packed is not None:
            return fused(self.convolution, self.packed, x, added)
        x = self.convolution(x)
        if self.norm is not None:
            x = self.norm(x)
        return F.relu(x if added is None else x + added)

    @torch.no_grad()
    def fold(self) -> None:
        """Put the norm, with the means and variances it has seen, into the convolution."""
        weight, bias, norm = self.convolution.weight, self.convolution.bias, self.norm
        if norm is None:
            return
        assert bias is not None
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)  # [D]
        weight.mul_(scale[:, None, None, None])
        bias.copy_((bias - norm.running_mean) * scale + norm.bias)
        self.norm = None

    def pack(self, shape: Sequence[int]) -> None:
        """Let oneDNN lay out the weights for inputs [N, ., H, W] of this shape."""
        one = self.convolution
        shape = [shape[0], one.in_channels, *shape[2:]]
        self.packed = torch.ops.mkldnn._reorder_convolution_weight(
            one.weight, one.padding, one.stride, one.dilation, one.groups, shape
        )


class Float32BatchNorm(nn.BatchNorm2d):
    """A batch norm whose numbers stay in float32 when its network is converted."""

    keep_float32 = True


class Block(nn.Module):
    """relu(x + two(relu(one(x)))). Where it `pools`, what the whole board looks like, the mean and
    the highest of every channel, is told to all cells in between (Wu 2019)."""

    def __init__(self, channels: int, norm: NormName, pools: bool) -> None:
        super().__init__()
        self.one = Convolution(channels, channels, 3, norm)
        self.pooled = nn.Linear(2 * channels, channels) if pools else None
        self.two = Convolution(channels, channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.one(x)
        if self.pooled is not None:
            hidden = F.relu(hidden + self.pooled(pool(hidden))[:, :, None, None])
        return self.two(hidden, x)

    def initialize(self, num_blocks: int) -> None:
        if self.two.norm is None:
            self.one.convolution.weight.mul_(num_blocks**-0.5)
            nn.init.zeros_(self.two.convolution.weight)
        else:
            nn.init.zeros_(self.two.norm.weight)
        if self.pooled is not None:
            nn.init.zeros_(self.pooled.weight)


class CellPolicy(nn.Module):
    """Logits where the moves are the cells, row by row, and perhaps a few others: the same function
    of every cell's surroundings and of the whole board."""

    def __init__(self, channels: int, num_cells: int, num_actions: int, norm: NormName) -> None:
        super().__init__()
        self.planes = Convolution(channels, channels, 1, norm)
        self.pooled = nn.Linear(2 * channels, channels)
        self.cell = Float32Linear(channels, 1)
        num_others = num_actions - num_cells
        self.others = Float32Linear(2 * channels, num_others) if num_others else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.planes(x)
        pooled = pool(x)
        x = F.relu(x + self.pooled(pooled)[:, :, None, None])
        logits = self.cell(x.permute(0, 2, 3, 1)).flatten(1)  # [N, H * W]
        return logits if self.others is None else torch.cat([logits, self.others(pooled)], 1)


class FlatPolicy(nn.Module):
    """Logits of any moves, from a few planes."""

    def __init__(self, channels: int, num_cells: int, num_actions: int, norm: NormName) -> None:
        super().__init__()
        self.planes = Convolution(channels, POLICY_PLANES, 1, norm)
        self.logits = Float32Linear(POLICY_PLANES * num_cells, num_actions)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.planes(x).permute(0, 2, 3, 1).flatten(1))


class Value(nn.Module):
    """The logit of the points, from a few planes."""

    def __init__(self, channels: int, num_cells: int, norm: NormName) -> None:
        super().__init__()
        self.planes = Convolution(channels, VALUE_PLANES, 1, norm)
        self.hidden = nn.Linear(VALUE_PLANES * num_cells, VALUE_HIDDEN)
        self.logit = Float32Linear(VALUE_HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.planes(x).permute(0, 2, 3, 1).flatten(1)
        return self.logit(F.relu(self.hidden(x)))[:, 0]


def pool(x: Tensor) -> Tensor:
    """Return mean and highest of every channel over the board, [N, C, H, W] -> [N, 2 C]."""
    kinds = F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)  # ten times as fast as amax
    return torch.cat(kinds, 1).flatten(1)


def worth(logit: Tensor) -> Tensor:
    """Return the value in -1..1 that a logit of the points stands for."""
    return torch.tanh(logit / 2)


@torch.no_grad()
def for_playing(
    tower: Tower, weights: Sequence[Tensor], dtype: torch.dtype, shape: Sequence[int]
) -> Tower:
    """Return a copy that computes in `dtype` with its norms folded into the convolutions, best for
    planes [N, C, H, W] of this shape. `weights` are the tower's parameters in float32."""
    copied = copy.deepcopy(tower).float().eval().requires_grad_(False)
    for parameter, weight in zip(copied.parameters(), weights, strict=True):
        parameter.copy_(weight)
    convolutions = [part for part in copied.modules() if isinstance(part, Convolution)]
    for one in convolutions:
        one.fold()
    convert(copied, dtype)
    copied.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if has_fused() and next(copied.parameters()).device.type == "cpu":
        for one in convolutions:
            one.pack(shape)
    return copied


def has_fused() -> bool:
    """Tell whether torch has oneDNN's convolutions that add and rectify as they go. Torch's own
    compiler calls them, and no public function does: on a processor whose memory is slower than its
    arithmetic they are 10 to 20% faster."""
    names = ("_convolution_pointwise", "_reorder_convolution_weight")
    return torch.backends.mkldnn.is_available() and all(
        hasattr(torch.ops.mkldnn, name) for name in names
    )


def fused(one: nn.Conv2d, packed: Tensor, x: Tensor, added: Tensor | None) -> Tensor:
    """Return relu(convolution(x) + added)."""
    where = (one.padding, one.stride, one.dilation, one.groups)
    call = torch.ops.mkldnn._convolution_pointwise
    if added is None:
        return call.default(x, packed, one.bias, *where, "relu", [], "")
    return call.binary(x, added, packed, one.bias, *where, "add", 1.0, "relu", [], "")
