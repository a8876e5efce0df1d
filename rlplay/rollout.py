"""What agents have just done, as tensors to learn from: a rollout of T decisions of N envs, its
batches, and means over those of its decisions that count. Knows neither agents nor networks."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplay.core import Array, Mistake, Step


class Rollout(NamedTuple):
    """T decisions of N envs, as tensors on the agent's device."""

    observation: Tensor  # [T, N, ...] as the network sees it
    mask: Tensor | None  # [T, N, A] bool; None where every action is always legal
    sample: Tensor  # [T, N] int64 or [T, N, D], what log_prob is of
    log_prob: Tensor  # [T, N] of the sample when it was drawn
    value: Tensor  # [T + 1, N] of every moment to the player who moves there
    reward: Tensor  # [T, N] of the player who moved
    discount: Tensor  # [T, N] see targets.gae
    live: Tensor  # [T, N] bool, false where the action was ignored
    first: Tensor  # [T, N] bool, an episode begins; not told of moment 0
    memory: Tensor | None = None  # [1, N, M] before moment 0, of a recurrent network

    def earnings(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the functions of targets.py take."""
        return self.reward, self.discount, self.value, self.live

    def flat(self, **columns: Tensor) -> dict[str, Tensor]:
        """Return what losses are made of by name, [T * N, ...], and more columns [T, N, ...]; of a
        recurrent network, memory [N, M] too."""
        names = ("observation", "mask", "sample", "log_prob", "memory")
        names += () if self.memory is None else ("first",)
        named = {name: getattr(self, name) for name in names} | columns
        named |= {"value": self.value[:-1], "weight": self.live.float()}
        return flattened({name: x for name, x in named.items() if x is not None})


class Kept:
    """What an agent was shown and has moved to its device to act, to be learned from without being
    moved again. Moments are numbered, and the number is a note of what was decided."""

    def __init__(self, most: int) -> None:
        """Keep at most so many moments; 0 for none, where moving costs nothing."""
        self.most = most
        self.moments: OrderedDict[int, Tensor] = OrderedDict()  # [N, ...] by number
        # No two processes count the same, for what one has decided another may learn from.
        self.numbers = count(int.from_bytes(os.urandom(6), "big"))

    def add(self, observation: Tensor) -> dict[str, Array]:
        """Keep what N envs show at one moment [N, ...]; return the note, empty where none is
        needed."""
        if not self.most:
            return {}
        number = next(self.numbers)
        self.moments[number] = observation
        while len(self.moments) > self.most:
            self.moments.popitem(last=False)
        return {"moment": np.full(len(observation), number)}

    def take(self, notes: Mapping[str, Array]) -> Tensor | None:
        """Return the moments of notes [T, N] as one tensor [T, N, ...], or None where one of them
        was not kept. They are kept no longer."""
        if "moment" not in notes:
            return None
        found = [self.moments.pop(number, None) for number in notes["moment"][:, 0].tolist()]
        there = [moment for moment in found if moment is not None]
        return torch.stack(there) if len(there) == len(found) else None


def earned(step: Step) -> Array:
    """Return what those who moved earned by it, [T, N], given T + 1 moments."""
    return np.take_along_axis(step.reward[1:], step.player[:-1, :, None], 2)[..., 0]


def flattened(columns: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return columns [T, N, ...] as [T * N, ...]; pictures with their channels last in memory, as
    convolutions want them."""
    flat = {name: column.flatten(0, 1) for name, column in columns.items()}
    pictures = {name: column for name, column in flat.items() if column.ndim == 4}
    return flat | {
        name: picture.contiguous(memory_format=torch.channels_last)
        for name, picture in pictures.items()
    }


def divides(batch_size: int, num_envs: int, horizon: int, whole: bool = False) -> None:
    """Raise Mistake where batches do not divide a rollout or, if they must hold `whole` sequences,
    would cut through what one env did."""
    size = num_envs * horizon
    unit = horizon if whole else 1
    if size % batch_size or batch_size % unit:
        divisors = [d for d in range(unit, size + 1, unit) if size % d == 0]
        nearest = min(divisors, key=lambda d: abs(d - batch_size))
        wrong = f"does not divide a rollout of {size} decisions"
        if size % batch_size == 0:
            wrong = "cuts the sequences in which a recurrent agent learns"
        raise Mistake(
            f"agent.batch_size {batch_size} {wrong}"
            f" (env.num_envs {num_envs} times agent.horizon {horizon}): set"
            f" agent.batch_size={nearest}"
        )


def shuffled(
    flat: dict[str, Tensor], batch_size: int, epochs: int, generator: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """Yield a rollout, columns [B, ...] by name, in batches, in a new order in every epoch. One
    with memory [N, M] is yielded env by env, each with all its moments."""
    weight, memory = flat["weight"], flat.get("memory")
    num_rows = len(weight) if memory is None else len(memory)
    for _ in range(epochs):
        order = torch.randperm(num_rows, generator=generator).to(weight.device)
        for rows in order.split(batch_size * num_rows // len(weight)):
            if memory is None:
                yield {name: selected(column, rows) for name, column in flat.items()}
            else:
                envs = {name: x.unflatten(0, (-1, num_rows))[:, rows] for name, x in flat.items()}
                yield flattened(envs)


def selected(column: Tensor, rows: Tensor) -> Tensor:
    """Return rows of a column [B, ...]; pictures keep their channels last in memory."""
    if column.ndim != 4:
        return column[rows]
    return column.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2)


def mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of values [B] by weights [B]; 0 where all weights are 0."""
    return (values * weight).sum() / weight.sum().clamp(min=1e-8)


def normalized(values: Tensor, weight: Tensor) -> Tensor:
    """Return values [B] brought to mean 0 and deviation 1, by weights [B]."""
    away = values - mean(values, weight)
    return away / (mean(away.square(), weight).sqrt() + 1e-8)


def explained_variance(value: Tensor, returns: Tensor, weight: Tensor) -> float:
    """Return how much of the variance of the returns [B] the values [B] knew beforehand, by weights
    [B]: 1 is all, 0 none; 0 too where there is none."""
    error = returns - value
    variance = mean((returns - mean(returns, weight)).square(), weight)
    left = mean((error - mean(error, weight)).square(), weight)
    return float(1 - left / variance) if variance > 0 else 0.0
