"""From the moments of our loop to the rows of SB3's buffers, and what must be known of the moments
before. Knows nothing of SB3 itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlplay.core import Array, Step, Trajectory


class Stream:
    """What an agent must know of the moments before, in N envs that it plays."""

    def __init__(self) -> None:
        self.over: Array | None = None  # [N] bool, the moment before ended an episode
        self.memory: list[Array] = []  # [L, N, H] each, of an LSTM

    def starts(self, step: Step) -> Array:
        """Return in which envs an episode starts, a lost life being the end of one, [N] bool."""
        if self.over is None or len(self.over) != len(step.done):
            self.over, self.memory = np.ones(len(step.done), bool), []
        starts = self.over | (step.discount == 0)
        self.over = step.done
        return starts

    def lstm(self, policy: Any, num_envs: int) -> list[Array]:
        layers, _, width = policy.lstm_hidden_state_shape
        return self.memory or [np.zeros((layers, num_envs, width), np.float32)] * 4


class Rows:
    """Transitions of N envs, those of each in order, until there is one of every env for a row."""

    def __init__(self, num_envs: int) -> None:
        self.waiting: list[dict[str, Array]] = [{} for _ in range(num_envs)]  # [K, ...] by name

    def __len__(self) -> int:
        return min(len(waiting.get("reward", ())) for waiting in self.waiting)

    def add(self, trajectory: Trajectory) -> None:
        """Add T moments, but those at which an episode was over and the action ignored."""
        step, decision = trajectory
        columns = {
            "observation": step.observation[:-1],
            "next_observation": step.observation[1:],
            "reward": step.reward[1:, :, 0],
            "over": step.discount[1:] == 0,
            "cut": step.truncated[1:] & (step.discount[1:] != 0),
            **decision.notes,
        }
        live = ~step.done[:-1]  # [T, N]
        for i, waiting in enumerate(self.waiting):
            for name, column in columns.items():
                new = column[live[:, i], i]
                waiting[name] = np.concatenate([waiting[name], new]) if name in waiting else new

    def take(self, count: int) -> dict[str, Array]:
        """Return the first `count` rows by name, [count, N, ...], and remove them."""
        if not count:
            return {}
        names = list(self.waiting[0])
        rows = {k: np.stack([own[k][:count] for own in self.waiting], 1) for k in names}
        self.waiting = [{k: own[k][count:] for k in names} for own in self.waiting]
        return rows


def nearest_legal(action: Array, mask: Array) -> Array:
    """Return actions [N] with the legal one of the nearest number for each that is illegal; `mask`
    is [N, A], and [N, 0] where no action can be."""
    if mask.all():
        return action
    distance = np.abs(np.arange(mask.shape[1]) - action[:, None])  # [N, A]
    return np.where(mask, distance, mask.shape[1]).argmin(1)
