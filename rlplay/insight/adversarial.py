"""How little it takes to deceive a network: the fast gradient sign method (Goodfellow et al. 2015),
on agents too (Huang et al. 2017); one perturbation for all pictures (Moosavi-Dezfooli et al. 2017),
found here by projected steps (Shafahi et al. 2020); and one patch, anywhere (Brown et al. 2017).

Each is shown beside chance: noise of the same size, or a patch of noise. Sizes are grey levels of
255, whole ones, so that what is attacked is still a picture. An attack knows the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplay.core import Agent, Array, Decision, Env, Step
from rlplay.evaluate import bootstrap_interval, play_wave
from rlplay.insight.saliency import margin
from rlplay.perception.classify import wilson

Scores = Callable[[Tensor], Tensor]
"""From pictures [B, C, H, W], 0..1, to the scores of classes or actions [B, A]."""
Attack = Callable[[Array, Array | None], Array]
"""From pictures [B, C, H, W] uint8 and what is right of them [B], by default what is chosen, to
attacked ones."""
BATCH = 64  # pictures attacked at once
ROUNDS = 40  # steps to find a perturbation or a patch for all pictures


class Point(NamedTuple):
    """How well it does under an attack: the mean and its 95% interval."""

    size: float
    mean: float
    low: float
    high: float


def fast_gradient_sign(scores: Scores, device: torch.device, epsilon: float) -> Attack:
    """Return the attack that moves every pixel by epsilon grey levels to where what is right loses
    most against the rest. The cross-entropy's slope has the same sign as the margin's, and fades
    where the network is sure."""

    def attack(pictures: Array, right: Array | None) -> Array:
        changed = []
        for start in range(0, len(pictures), BATCH):
            part = pictures[start : start + BATCH]
            known = None if right is None else right[start : start + BATCH]
            slope = slopes(scores, torch.from_numpy(part).to(device) / 255, known)
            changed.append(moved(part, -epsilon * slope.sign().cpu().numpy()))
        return np.concatenate(changed)

    return attack


def noise(epsilon: float, seed: int) -> Attack:
    """Return the attack that moves every pixel by epsilon grey levels up or down, at random."""
    random = np.random.default_rng([*b"noise", seed])

    def attack(pictures: Array, right: Array | None) -> Array:
        sign = random.integers(2, size=pictures.shape) * 2 - 1
        return moved(pictures, epsilon * sign)

    return attack


def universal(
    scores: Scores, device: torch.device, pictures: Array, epsilon: float, seed: int
) -> Array:
    """Return the perturbation [C, H, W], whole grey levels of at most epsilon, that costs most what
    is chosen for `pictures` [n, C, H, W] uint8, one for all of them."""
    random = np.random.default_rng([*b"universal", seed])
    change = torch.zeros(pictures.shape[1:], device=device)
    right = choices(scores, device, pictures)
    for turn in range(ROUNDS if epsilon else 0):
        index = random.permutation(len(pictures))[:BATCH]
        x = torch.from_numpy(pictures[index]).to(device) / 255
        slope = slopes(scores, (x + change / 255).clamp(0, 1), right[index]).sum(0)
        pace = epsilon * 0.25 * (1 - turn / ROUNDS)
        change = (change - pace * slope.sign()).clamp(-epsilon, epsilon)
    return change.round().cpu().numpy()


def added(change: Array) -> Attack:
    """Return the attack that adds the same change [C, H, W] to every picture."""
    return lambda pictures, right: moved(pictures, change)


def patch(scores: Scores, device: torch.device, pictures: Array, side: int, seed: int) -> Array:
    """Return the square [C, side, side] uint8 that, wherever it lies, costs most what is chosen for
    `pictures` [n, C, H, W] uint8."""
    random = np.random.default_rng([*b"patch", seed])
    square = torch.from_numpy(noise_patch(pictures, side, seed)).to(device) / 255
    right = choices(scores, device, pictures)
    for turn in range(ROUNDS):
        index = random.permutation(len(pictures))[:BATCH]
        x = torch.from_numpy(pictures[index]).to(device) / 255
        where = places(len(index), pictures.shape[2:], side, random)
        hidden = torch.stack([covered(one, square, *at) for one, at in zip(x, where, strict=True)])
        slope = slopes(scores, hidden, right[index])
        parts = [
            one[:, top : top + side, left : left + side]
            for one, (top, left) in zip(slope, where, strict=True)
        ]
        pace = 0.2 * (1 - turn / ROUNDS)
        square = (square - pace * torch.stack(parts).sum(0).sign()).clamp(0, 1)
    return (255 * square).round().to(torch.uint8).cpu().numpy()


def noise_patch(pictures: Array, side: int, seed: int) -> Array:
    """Return a square of noise [C, side, side] uint8."""
    random = np.random.default_rng([*b"square", seed])
    return random.integers(256, size=(pictures.shape[1], side, side), dtype=np.uint8)


def pasted(square: Array, seed: int) -> Attack:
    """Return the attack that lays a square [C, side, side] uint8 on every picture: the same places
    for the n pictures of every call, so that it lies still in an episode."""

    def attack(pictures: Array, right: Array | None) -> Array:
        random = np.random.default_rng([*b"pasted", seed])
        changed, side = pictures.copy(), square.shape[1]
        for one, (top, left) in zip(
            changed, places(len(pictures), pictures.shape[2:], side, random), strict=True
        ):
            one[:, top : top + side, left : left + side] = square
        return changed

    return attack


def slopes(scores: Scores, pictures: Tensor, right: Array | None) -> Tensor:
    """Return how every pixel of pictures [B, C, H, W], 0..1, moves the margin of what is right."""
    x = pictures.detach().clone().requires_grad_()
    found = scores(x)
    known = found.argmax(1) if right is None else torch.from_numpy(right).to(found.device)
    return torch.autograd.grad(margin(found, known).sum(), x)[0]


@torch.no_grad()
def choices(scores: Scores, device: torch.device, pictures: Array) -> Array:
    """Return what is chosen [n] for pictures [n, C, H, W] uint8."""
    parts = [
        scores(torch.from_numpy(pictures[start : start + BATCH]).to(device) / 255).argmax(1)
        for start in range(0, len(pictures), BATCH)
    ]
    return torch.cat(parts).cpu().numpy()


def moved(pictures: Array, change: Array) -> Array:
    """Return pictures uint8 whose pixels are moved by whole grey levels, as far as 0..255 goes."""
    return (pictures + np.round(change)).clip(0, 255).astype(np.uint8)


def places(
    num: int, size: tuple[int, ...], side: int, random: np.random.Generator
) -> list[tuple[int, int]]:
    """Return as many places, top and left, at which a square lies in a picture."""
    tops, lefts = (random.integers(length - side + 1, size=num) for length in size)
    return list(zip(tops.tolist(), lefts.tolist(), strict=True))


def covered(picture: Tensor, square: Tensor, top: int, left: int) -> Tensor:
    """Return a picture [C, H, W] with a square on it."""
    side = square.shape[1]
    changed = picture.clone()
    changed[:, top : top + side, left : left + side] = square
    return changed


def accuracy(
    scores: Scores, device: torch.device, pictures: Array, labels: Array, attack: Attack
) -> tuple[float, float, float]:
    """Return the share of attacked pictures [n, C, H, W] that are taken for what they are, and its
    95% interval."""
    right = int((choices(scores, device, attack(pictures, labels)) == labels).sum())
    return right / len(labels), *wilson(right, len(labels))


class Attacked(Agent):
    """An agent that is shown attacked pictures."""

    def __init__(self, agent: Agent, attack: Attack) -> None:
        self.agent, self.attack = agent, attack

    def act(self, step: Step, explore: bool = True) -> Decision:
        shown = self.attack(step.observation, None)
        return self.agent.act(step._replace(observation=shown), explore)

    def begin(self) -> None:
        self.agent.begin()


def episode_score(
    env: Env, agent: Agent, max_steps: int, seed: int, attack: Attack
) -> tuple[float, float, float]:
    """Return the mean score of as many episodes as there are envs, at most `max_steps` long and
    begun alike whatever the attack, in which every picture is attacked, and its 95% interval."""
    attacked = Attacked(agent, attack)
    scores, _, _ = play_wave(env, attacked, env.reset(seed), env.spec.num_envs, max_steps)
    return float(scores.mean()), *bootstrap_interval(scores)
