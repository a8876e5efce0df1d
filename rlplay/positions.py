"""A memory of positions of finished games, for agents that learn what a search has found there.

Boards are kept as the rules write them, and the planes that a network sees are made of them on the
way out, turned or mirrored by chance (Silver et al. 2016). It knows no network and no search.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlplay.core import Array, Game, Mistake, State, Symmetries, Trajectory


class Games(NamedTuple):
    """G games that have ended."""

    length: Array  # [G] int64, moves
    first: Array  # [G] what the first player got
    num_positions: int  # of them that are learned from


class Batch(NamedTuple):
    """B positions as the network learns them, seen by the player who moves."""

    planes: Array  # [B, C, H, W]
    mask: Array  # [B, A] bool
    policy: Array  # [B, A] the search's
    value: Array  # [B] in -1..1


class Positions:
    """A memory of the newest positions of finished games, and those of games that go on.

    Boards are kept, and planes are made of them on the way out. A position's `value` is the
    search's until its game ends and then what is to be learned."""

    def __init__(self, game: Game, num_envs: int, capacity: int) -> None:
        self.game = game
        self.kind = np.dtype(
            [
                ("board", game.dtype),
                ("player", np.int8),
                ("value", np.float32),
                ("policy", np.float16, game.num_actions),
            ]
        )
        self.kept = np.empty(capacity, self.kind)
        self.num_added = 0
        self.running = np.zeros((num_envs, game.max_moves), self.kind)
        self.count = np.zeros(num_envs, np.int64)  # [N] positions of each running game
        self.length = np.zeros(num_envs, np.int64)  # [N] moves of each

    def __len__(self) -> int:
        return min(self.num_added, len(self.kept))

    def add(self, trajectory: Trajectory, value_mix: float) -> Games:
        """Follow N games for T moves; those that end are moved to the memory."""
        step, notes = trajectory.step, trajectory.decision.notes
        ended = []
        for t in range(len(trajectory.decision.action)):
            live = ~step.done[t]
            # Longer than any game: the world began anew without a word.
            self.drop(self.length >= self.game.max_moves)
            rows = np.flatnonzero(live & notes["full"][t])
            new = np.empty(len(rows), self.kind)
            new["board"], new["player"] = step.state[t, rows], step.player[t, rows]
            new["value"], new["policy"] = notes["value"][t, rows], notes["policy"][t, rows]
            self.running[rows, self.count[rows]] = new
            self.count[rows] += 1
            self.length[live] += 1
            if step.terminated[t + 1].any():
                over = np.flatnonzero(step.terminated[t + 1])
                ended.append(self.end(over, step.reward[t + 1, over], value_mix))
            self.drop(step.done[t + 1])
        lengths, firsts, nums = zip(*ended, strict=True) if ended else ([[]], [[]], [0])
        return Games(np.concatenate(lengths), np.concatenate(firsts), sum(nums))

    def end(self, envs: Array, reward: Array, value_mix: float) -> tuple[Array, Array, int]:
        """Move the games of `envs` [G] to the memory, given what their players got [G, 2]."""
        count = self.count[envs]
        positions = self.running[envs][self.used()[envs]]
        result = np.repeat(reward, count, 0)[np.arange(len(positions)), positions["player"]]
        positions["value"] = (1 - value_mix) * result + value_mix * positions["value"]
        slots = (self.num_added + np.arange(len(positions))) % len(self.kept)
        self.kept[slots[-len(self.kept) :]] = positions[-len(self.kept) :]
        self.num_added += len(positions)
        return self.length[envs], reward[:, 0], len(positions)

    def sample(self, batch_size: int, generator: np.random.Generator, turns: bool) -> Batch:
        """Draw positions, all equally likely; with `turns`, each as one of the symmetries of the
        game shows it, drawn by chance."""
        game = self.game
        drawn = self.kept[generator.integers(len(self), size=batch_size)]
        board = np.ascontiguousarray(drawn["board"])
        policy = drawn["policy"].astype(np.float32)
        policy /= policy.sum(1, keepdims=True)
        batch = Batch(game.observe(board), game.action_mask(board), policy, drawn["value"].copy())
        if not turns:
            return batch
        num_symmetries = len(game.symmetries.board_symmetries)
        return turned(batch, game.symmetries, generator.integers(num_symmetries, size=batch_size))

    def drop(self, over: Array) -> None:
        """Begin anew in some envs [N] bool."""
        self.count[over] = self.length[over] = 0

    def cut(self) -> None:
        """The running games will not be finished."""
        self.drop(np.ones(len(self.count), bool))

    def state_dict(self) -> State:
        return {"positions": self.kept[: len(self)], "num_added": self.num_added}

    def load_state_dict(self, state: State) -> None:
        """Raises Mistake where the memory had another size."""
        positions, num_added = state["positions"], state["num_added"]
        if len(positions) > len(self.kept) or len(positions) < min(num_added, len(self.kept)):
            raise Mistake(
                f"the run was saved with {len(positions):,} positions: set"
                f" agent.replay_size={len(positions)}"
            )
        self.num_added = num_added
        self.kept[: len(positions)] = positions

    def running_games(self) -> State:
        return {"games": self.running[self.used()], "count": self.count, "length": self.length}

    def load_running_games(self, state: State) -> None:
        if len(state["count"]) == len(self.count):  # else the env will say what is wrong
            self.count, self.length = np.array(state["count"]), np.array(state["length"])
            self.running[self.used()] = state["games"]

    def used(self) -> Array:  # [N, moves] bool
        return np.arange(self.running.shape[1]) < self.count[:, None]


def turned(batch: Batch, symmetries: Symmetries, which: Array) -> Batch:
    """Return positions as their symmetries `which` [B] int64 show them."""
    cells, actions = symmetries.board_symmetries[which], symmetries.action_symmetries[which]
    flat = batch.planes.reshape(*batch.planes.shape[:2], -1)  # [B, C, H * W]
    planes = np.take_along_axis(flat, cells[:, None], 2).reshape(batch.planes.shape)
    mask, policy = (np.take_along_axis(a, actions, 1) for a in (batch.mask, batch.policy))
    return Batch(planes, mask, policy, batch.value)
