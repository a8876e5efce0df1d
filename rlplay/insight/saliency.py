"""What in a picture moves a network's judgement: gradients (Simonyan et al. 2014), smoothed ones
(Smilkov et al. 2017), occlusion (Zeiler & Fergus 2014), blurring (Greydanus et al. 2018), Grad-CAM
(Selvaraju et al. 2017); and the picture that moves it most (Simonyan et al. 2014; Yosinski et al.
2015).

A judgement is any function from pictures [B, C, H, W], 0..1, to K numbers each [B, K], such as the
log odds of what was chosen, and the value. It knows neither tasks nor agents.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Judgement = Callable[[Tensor], Tensor]

BATCH = 256  # pictures judged at once
SMALLEST = 4  # cells a side that a map must have to tell places apart
BLURRED = 3 / 80  # Greydanus et al. 2018: how far a place is blurred, as a share of the picture,
MASK = 5 / 80  # and how wide the place is, both as deviations of a normal density


def margin(scores: Tensor, chosen: Tensor) -> Tensor:
    """Return how far the score of what is chosen [B] is above the others' [B, A], [B]: its log odds
    where scores are logits. Unlike its probability, this has a slope where the choice is clear."""
    own = scores.gather(1, chosen[:, None])[:, 0]
    return own - scores.scatter(1, chosen[:, None], -math.inf).logsumexp(1)


def gradient(judge: Judgement, pictures: Tensor) -> Tensor:
    """Return the slope of the one number [B, 1] that is judged, at every pixel, [B, C, H, W]."""
    pictures = pictures.detach().clone().requires_grad_()
    return torch.autograd.grad(judge(pictures).sum(), pictures)[0]


def smooth_gradient(
    judge: Judgement, picture: Tensor, generator: torch.Generator, num: int = 32, sigma: float = 0.1
) -> Tensor:
    """Return the mean slope at a picture [C, H, W] and as many neighbours of it, whose noise has
    the deviation `sigma`, [C, H, W]."""
    noise = torch.randn((num, *picture.shape), generator=generator).to(picture)
    return gradient(judge, picture + sigma * noise).mean(0)


def strength(slopes: Tensor) -> Tensor:
    """Return the largest size over the channels, [..., C, H, W] -> [..., H, W]."""
    return slopes.abs().amax(-3)


@torch.no_grad()
def occlusion(
    judge: Judgement, picture: Tensor, fill: Tensor, side: int, stride: int = 1
) -> Tensor:
    """Return how much less is judged where a window of `side` pixels hides a picture [C, H, W], the
    mean over all windows that hide a pixel, [K, H, W]. A window shows `fill` [C, H, W] instead."""
    masks = []
    for top in starts(picture.shape[1], side, stride):
        for left in starts(picture.shape[2], side, stride):
            mask = torch.zeros_like(picture[:1])
            mask[:, top : top + side, left : left + side] = 1
            masks.append(mask)
    mask = torch.stack(masks)  # [M, 1, H, W]
    drop = changes(judge, picture, fill, mask)  # [M, K]
    return torch.einsum("mk,mhw->khw", drop, mask[:, 0]) / mask[:, 0].sum(0)


@torch.no_grad()
def blurring(judge: Judgement, picture: Tensor, num: int = 14) -> Tensor:
    """Return how much less is judged where a picture [C, H, W] is blurred around each of num x num
    places, and between them what lies between, [K, H, W]."""
    _, height, width = picture.shape
    fill = blur(picture[None], BLURRED * max(height, width))[0]
    sigma = MASK * max(height, width)
    rows = (torch.arange(num) + 0.5) * height / num - 0.5
    columns = (torch.arange(num) + 0.5) * width / num - 0.5
    down = bells(rows, height, sigma).to(picture)  # [num, H]
    along = bells(columns, width, sigma).to(picture)  # [num, W]
    mask = torch.einsum("ah,bw->abhw", down, along).reshape(-1, 1, height, width)
    drop = changes(judge, picture, fill, mask)  # [M, K]
    coarse = drop.T.reshape(1, -1, num, num)
    return F.interpolate(coarse, (height, width), mode="bilinear")[0]


def changes(judge: Judgement, picture: Tensor, fill: Tensor, mask: Tensor) -> Tensor:
    """Return how much less is judged of a picture [C, H, W] where it shows `fill` as far as each
    of the masks [M, 1, H, W], 0..1, says, [M, K]."""
    parts = [judge(picture + part * (fill - picture)) for part in mask.split(BATCH)]
    return judge(picture[None]) - torch.cat(parts)


def starts(length: int, side: int, stride: int) -> list[int]:
    """Return where windows begin that cover a length, the last one at its end."""
    last = max(length - side, 0)
    return [*range(0, last, stride), last]


def bells(centres: Tensor, length: int, sigma: float) -> Tensor:
    """Return bells of height 1 around each centre, [n, length]."""
    return torch.exp(-0.5 * ((torch.arange(length) - centres[:, None]) / sigma) ** 2)


def blur(pictures: Tensor, sigma: float) -> Tensor:
    """Return pictures [B, C, H, W] under a Gaussian blur whose deviation is `sigma` pixels."""
    num_channels, *size = pictures.shape[1:]
    reach = min(math.ceil(3 * sigma), min(size) - 1)
    bell = bells(torch.tensor([float(reach)]), 2 * reach + 1, sigma).to(pictures)
    kernel = (bell / bell.sum()).expand(num_channels, 1, -1)  # [C, 1, k]
    padded = F.pad(pictures, (reach,) * 4, mode="reflect")
    down = F.conv2d(padded, kernel[..., None], groups=num_channels)
    return F.conv2d(down, kernel[..., None, :], groups=num_channels)


def grad_cam(
    judge: Judgement, encoder: nn.Module, picture: Tensor, layer: int | None = None
) -> Tensor | None:
    """Return which places of an encoder's map speak for the one number that is judged of a picture
    [C, H, W], as [h, w], never below 0. The map is that of the number `layer`, or the coarsest one
    that tells places apart; None where no map on the way to the judgement does."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, given: Any, made: Any) -> None:
        maps.extend(made)

    hook = encoder.register_forward_hook(keep)
    try:
        judged = judge(picture[None].detach().clone().requires_grad_()).sum()
    finally:
        hook.remove()
    numbers = range(len(maps))[::-1] if layer is None else [layer]
    for number in numbers:
        features = maps[number]
        if layer is None and min(features.shape[2:]) < SMALLEST:
            continue
        (slope,) = torch.autograd.grad(judged, features, retain_graph=True, allow_unused=True)
        if slope is not None:
            weight = slope.mean((2, 3), keepdim=True)
            return F.relu((weight * features).sum(1))[0].detach()
    return None


def maximise(
    judge: Judgement,
    pictures: Tensor,
    generator: torch.Generator,
    num_steps: int = 200,
    rate: float = 0.05,
    decay: float = 1.0,
    sigma: float = 0.6,
    jitter: int = 2,
) -> Tensor:
    """Return pictures [B, C, H, W] changed step by step so that what is judged of each, [B, 1],
    grows, and its squared norm does not. As in Yosinski et al. (2015) the slope is brought to one
    size and pixels fade by `decay` against it, so that one weight suits all networks. On the way
    pictures are moved at random by up to `jitter` pixels and, every fourth step, blurred by `sigma`
    pixels, less and less: else what grows is noise that no picture has. They stay in 0..1."""
    x = pictures.detach().clone()
    for step in range(num_steps):
        left = 1 - step / num_steps
        down, along = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
        x = x.roll((down, along), (2, 3)).requires_grad_()
        (slope,) = torch.autograd.grad(judge(x).sum(), x)
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt()
        with torch.no_grad():
            x = (x + rate * (slope / (size + 1e-12) - decay * x)).clamp(0, 1)
            if sigma and step % 4 == 0:
                x = blur(x, max(sigma * left, 0.1))
            x = x.roll((-down, -along), (2, 3))
    return x
