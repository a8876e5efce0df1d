"""What the log says: means over time, over the runs side by side, and over episodes.

A metric is a number, or an array [N] with one number for each of N independent runs; of the latter
the log also says how sure the mean is. NaN is nothing. Of whole numbers, and of what is cumulative,
the latest counts instead of the mean over time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np

from rlplay.core import Array, Spec, State, Step
from rlplay.play import Moment

RECENT = 100
"""Finished episodes over which the log averages."""
MAX_EPISODES = 10_000
"""Episodes of each env that are told apart by their number."""


class Averages:
    """Means of the metrics since the log last took them, or the latest of them."""

    def __init__(self) -> None:
        self.sums: dict[str, Array] = {}  # [2] or [2, N]: sum and count
        self.latest: dict[str, int] = {}

    def add(self, metrics: Mapping[str, float | Array]) -> None:
        for name, value in metrics.items():
            if isinstance(value, int):
                self.latest[name] = value
                continue
            if name not in self.sums:
                self.sums[name] = np.zeros((2, *np.shape(value)))
            total, known = self.sums[name], ~np.isnan(value)
            if name.rpartition("/")[2].startswith("cumulative_"):
                total[:] = np.where(known, np.stack([value, np.ones_like(value)]), total)
                continue
            total[0] += np.where(known, value, 0)
            total[1] += known

    def take(self) -> dict[str, float]:
        """Return the means by name and, of metrics by run, half the width of the mean's 95%
        interval as `<name>_ci`."""
        means: dict[str, float] = dict(self.latest)
        for name, (total, count) in self.sums.items():
            known = np.atleast_1d(count) > 0
            values = np.atleast_1d(total)[known] / np.atleast_1d(count)[known]
            if len(values):
                means[name] = float(values.mean())
            if len(values) > 1:
                means[f"{name}_ci"] = float(1.96 * values.std(ddof=1) / np.sqrt(len(values)))
        self.sums, self.latest = {}, {}
        return means

    def state_dict(self) -> State:
        return {"sums": dict(self.sums), "latest": dict(self.latest)}

    def load_state_dict(self, state: State) -> None:
        self.sums = {name: np.array(sums) for name, sums in state["sums"].items()}
        self.latest = dict(state["latest"])


class Episodes:
    """Listens to a stream of play and keeps what the log says about episodes."""

    def __init__(self, spec: Spec, averages: Averages) -> None:
        self.averages = averages
        self.count = 0
        self.running = np.zeros((spec.num_envs, 3))  # reward, score and length so far
        self.finished: deque[list[float]] = deque(maxlen=RECENT)
        self.number = np.zeros(spec.num_envs, np.int64)  # of the episode that each env is in
        self.ended: tuple[Array, Array] = (np.zeros(0, int), np.zeros(0, int))  # envs, numbers
        self.by_number: dict[str, Array] = {}
        """[E, 3] float64 by name: over the envs' e-th episodes, their number, the sum of the metric
        and the sum of its squares."""

    def listen(self, moments: Iterator[Moment]) -> Iterator[Moment]:
        for moment in moments:
            started = moment.step.done  # the action after a done began a new episode
            following = moment.following
            if started.any():
                self.running[started] = 0
            self.running[:, 0] += following.reward[:, 0]
            self.running[:, 1] += following.score[:, 0]
            self.running[:, 2] += ~started
            self.end(following)
            if following.measures is not None:
                self.averages.add({f"rollout/{k}": v for k, v in following.measures.items()})
            yield moment

    def end(self, step: Step) -> None:
        """Note the episodes that end at `step`."""
        envs = np.flatnonzero(step.done)
        self.ended = (envs, self.number[envs])
        if len(envs):
            self.finished.extend(self.running[envs].tolist())
            self.count += len(envs)
            self.note("score", self.running[:, 1])
            self.note("length", self.running[:, 2])
            self.number[envs] += 1

    def note(self, name: str, values: Array) -> None:
        """Add what a metric [N] came to in the episodes that have just ended."""
        envs, numbers = self.ended
        envs, numbers = envs[numbers < MAX_EPISODES], numbers[numbers < MAX_EPISODES]
        if not len(envs):
            return
        table = self.by_number.get(name, np.zeros((16, 3)))
        while len(table) <= numbers.max():
            table = np.concatenate([table, np.zeros_like(table)])
        self.by_number[name] = table
        seen = values[envs]
        np.add.at(table, numbers, np.stack([np.ones_like(seen), seen, seen**2], axis=1))

    def metrics(self) -> dict[str, float]:
        """Return means over the recent episodes: reward as learned from, score in game points."""
        if not self.finished:
            return {}
        reward, score, length = np.mean(self.finished, axis=0).tolist()
        return {
            "rollout/ep_rew_mean": reward,
            "rollout/ep_score_mean": score,
            "rollout/ep_len_mean": length,
        }

    def cut(self) -> None:
        """The world starts anew: the running episodes never end."""
        self.running[:] = 0

    def state_dict(self) -> State:
        return {
            "count": self.count,
            "running": self.running,
            "finished": np.array(self.finished).reshape(-1, 3),
            "number": self.number,
            "by_number": dict(self.by_number),
        }

    def load_state_dict(self, state: State) -> None:
        self.count = state["count"]
        self.finished.extend(state["finished"].tolist())
        if state["running"].shape == self.running.shape:
            self.running = np.array(state["running"])
            self.number = np.array(state["number"])
        self.by_number = {name: np.array(table) for name, table in state["by_number"].items()}
