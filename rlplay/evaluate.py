"""How well an agent plays: a fixed protocol, fixed seeds, and a score with its interval.

Statistics as in Agarwal et al. (2021), "Deep RL at the Edge of the Statistical Precipice".
Knows nothing of training: it never calls `learn`, and reads `Step.score`, never `Step.reward`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Annotated

import numpy as np

from rlplay.core import Agent, Array, Decision, Env, Mistake, Range, Step
from rlplay.play import play


@dataclass(frozen=True)
class Config:
    """The protocol of an evaluation."""

    num_episodes: Annotated[int, Range(0)] = 30
    """Episodes to play, each from its own seed. 0 for none, where the learning is the score. Games
    for two come in pairs: of an odd number, one more."""
    num_envs: Annotated[int, Range(1)] = 10
    """Episodes played side by side; more where an agent is more learners, one for each env, so that
    as many of them as there are episodes are scored."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 1_000_000
    """Seed of the first episode, far from the seeds of training."""
    epsilon: Annotated[float, Range(0, 1)] = 0.0
    """Share of actions that are uniformly random legal ones: 0.05 in Mnih et al. (2015), 0 where
    sticky actions already keep the agent from reciting one game (Machado et al., 2018)."""
    opponent: str = "uniform"
    """Of games for two: the agent to be scored against, such as mcts:num_simulations=1000."""
    random_opening: Annotated[int, Range(0)] = 2
    """Of games for two: random moves before the agents take over, the same for both colours."""
    max_steps: Annotated[int, Range(1)] = 27_000
    """Agent steps after which an episode is cut and reported as stalled; 27,000 are 30 minutes
    of Atari at frame skip 4."""


@dataclass(frozen=True)
class Result:
    """What E episodes came to. Of games for two, a score is 1 for a win, 0.5 for a draw, else 0."""

    scores: Array  # [E] float64, in the game's own points, never clipped
    lengths: Array  # [E] int64, agent steps
    stalled: Array  # [E] bool, still going after `max_steps`
    reference: tuple[float, float] | None = None  # score of a random player and of a person
    opponent: str = ""  # in games for two

    def summary(self) -> dict[str, float]:
        """Return the numbers to report, by name. The interval is of the mean, at 95%; std is that
        of these E episodes; human_normalized is 0 for the random player and 1 for the person."""
        low, high = bootstrap_interval(self.scores)
        mean = float(self.scores.mean())
        numbers = {
            "mean": mean,
            "median": float(np.median(self.scores)),
            "iqm": interquartile_mean(self.scores),
            "ci_low": low,
            "ci_high": high,
            "std": float(self.scores.std()),
            "min": float(self.scores.min()),
            "max": float(self.scores.max()),
            "mean_length": float(self.lengths.mean()),
            "stalled": float(self.stalled.sum()),
            "episodes": float(len(self.scores)),
        }
        if self.reference is not None:
            random, human = self.reference
            numbers["human_normalized"] = (mean - random) / (human - random)
        return numbers


def evaluate(env: Env, agent: Agent, config: Config) -> Result:
    """Play `num_episodes` in waves of as many as `env` holds, one episode per env and wave, so
    that long episodes count as often as short ones. Raises Mistake for epsilon without actions
    to choose from."""
    if config.epsilon > 0:
        if env.spec.num_actions == 0:
            raise Mistake(
                "evaluation with epsilon > 0 needs a finite set of actions, "
                f"and this world has {env.spec.action_space}; set epsilon to 0"
            )
        agent = Noisy(agent, config.epsilon, config.seed)
    waves = []
    for first in range(0, config.num_episodes, env.spec.num_envs):
        step = env.reset(config.seed + first)
        waves.append(play_wave(env, agent, step, config.num_episodes - first, config.max_steps))
    scores, lengths, stalled = (np.concatenate(column) for column in zip(*waves, strict=True))
    return Result(scores, lengths, stalled, env.spec.reference_scores)


def play_wave(
    env: Env, agent: Agent, step: Step, count: int, max_steps: int
) -> tuple[Array, Array, Array]:
    """Play one episode in each of the first `count` envs; return scores, lengths and stalled."""
    n = env.spec.num_envs
    live = np.arange(n) < count  # [N] bool, this env's one episode still runs
    scores, lengths, terminated = np.zeros(n), np.zeros(n, np.int64), np.zeros(n, bool)
    for moment in islice(play(env, agent, step, explore=False), max_steps):
        following = moment.following
        scores += np.where(live, following.score[:, 0], 0.0)
        lengths += live
        terminated |= live & following.terminated
        live &= ~following.done
        if not live.any():
            break
    # A world with the same limit of its own truncates on the very step at which we would cut.
    stalled = (lengths == max_steps) & ~terminated
    return scores[:count], lengths[:count], stalled[:count]


class Noisy(Agent):
    """An agent whose hand slips: with probability `epsilon` it takes any legal action instead."""

    def __init__(self, agent: Agent, epsilon: float, seed: int) -> None:
        self.agent = agent
        self.epsilon = epsilon
        # Named, so that it never repeats the random numbers of an env with the same seed.
        self.generator = np.random.default_rng([*b"noisy", seed])

    def act(self, step: Step, explore: bool = True) -> Decision:
        decision = self.agent.act(step, explore)
        slips = self.generator.random(len(step.action_mask)) < self.epsilon
        action = np.where(slips, random_legal(step.action_mask, self.generator), decision.action)
        return decision._replace(action=action)

    def begin(self) -> None:
        self.agent.begin()


def random_legal(action_mask: Array, generator: np.random.Generator) -> Array:
    """Return one of the legal actions per row of `action_mask` [N, A], all equally likely, as
    int64 [N]. Raises ValueError where a row has none."""
    count = action_mask.cumsum(axis=1, dtype=np.int32)  # [N, A] legal actions up to here
    chosen = generator.integers(count[:, -1])  # [N] the how-manieth legal action
    return (count > chosen[:, None]).argmax(axis=1)


def interquartile_mean(scores: Array) -> float:
    """Mean of the middle half: a quarter of the scores, rounded down, is dropped at each end."""
    dropped = len(scores) // 4
    return float(np.sort(scores)[dropped : len(scores) - dropped].mean())


def bootstrap_interval(scores: Array, resamples: int = 10_000) -> tuple[float, float]:
    """Return the 95% percentile bootstrap interval of the mean; same scores, same interval."""
    generator, count = np.random.default_rng(0), len(scores)
    rows = max(1, 1_000_000 // count)  # drawn at once, to spare memory
    means = [
        scores[generator.integers(count, size=(min(rows, resamples - first), count))].mean(axis=1)
        for first in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)
