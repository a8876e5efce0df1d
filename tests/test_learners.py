"""Laws of `rlplay/learners.py` that every tabular learner of agents/ keeps, and of its kernels."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from agents.uniform import Uniform
from rlplay import checkpoint, config, learners, planning
from rlplay.core import Agent, Array, Env, Mistake, Spec, Step, Trajectory
from rlplay.markov import MarkovEnv
from rlplay.model import Model
from rlplay.play import collect, play

CONTROL: dict[str, dict[str, Any]] = {
    "q_learning": {},
    "double_q_learning": {},
    "expected_sarsa": {},
    "sarsa": {},
    "sarsa_lambda": {},
    "dyna_q": {"kappa": 0.1},
    "monte_carlo_control": {"exploring_starts": True},
    "off_policy_monte_carlo": {},
}
PREDICTION: dict[str, dict[str, Any]] = {
    "td0": {},
    "n_step_td": {"num_steps": 3},
    "td_lambda": {},
    "monte_carlo_prediction": {},
    "off_policy_monte_carlo": {"policy": "optimal", "epsilon": 0.5},
}
ALL = [*CONTROL.items(), *PREDICTION.items()]
every_agent = pytest.mark.parametrize(("name", "settings"), ALL, ids=lambda v: str(v)[:30])


def labyrinth(seed: int = 0) -> Model:
    """Return a random model of 7 states and 3 actions, of which some are illegal; state 5 ends
    every episode and state 6 is never reached."""
    random, rows = np.random.default_rng(seed), []
    for state in (0, 1, 2, 3, 4, 6):
        for action in range(3):
            if action != state % 4:
                following = random.choice(6, 2, replace=False)
                for arrived, probability in zip(following, (0.75, 0.25), strict=True):
                    rows.append((state, action, arrived, probability * 0.85, random.normal(), False))
                rows.append((state, action, 5, 0.15, 1.0, True))
    return Model.of(7, 3, rows, np.array([0.5, 0.5, 0, 0, 0, 0, 0]))


def world(num_envs: int = 3, seed: int = 0, max_steps: int = 6) -> MarkovEnv:
    return MarkovEnv(labyrinth(seed), num_envs, max_steps=max_steps)


def make(name: str, settings: dict[str, Any], spec: Spec, seed: int = 0, **keywords: Any) -> Any:
    return config.plugin("agents", name).Config(**settings).make(spec, seed, **keywords)


def lived(env: Env, agent: Agent, num_steps: int, seed: int = 0) -> list[Trajectory]:
    """Return what an agent goes through, learning as it does."""
    moments, trajectories = play(env, agent, env.reset(seed)), []
    for _ in range(num_steps):
        trajectories.append(collect(moments, 1))
        agent.learn(trajectories[-1])
    return trajectories


def watched(env: Env, num_steps: int, seed: int = 0) -> list[Trajectory]:
    """Return what a random player goes through."""
    return lived(env, Uniform(env.spec, seed), num_steps, seed)


def plain(state: Any) -> Any:
    """Return a saved state with its arrays as bytes, so that states can be compared."""
    if isinstance(state, dict):
        return {name: plain(part) for name, part in state.items()}
    return (state.dtype, state.shape, state.tobytes()) if isinstance(state, np.ndarray) else state


def slice_of(trajectory: Trajectory, i: int) -> Trajectory:
    """Return what env i alone went through."""
    step, decision = trajectory
    notes = {name: note[:, i : i + 1] for name, note in decision.notes.items()}
    columns = (None if leaf is None else leaf[:, i : i + 1] for leaf in step)
    return Trajectory(Step(*columns), decision._replace(action=decision.action[:, [i]], notes=notes))


# Laws of every agent.


@every_agent
def test_resumed_learner_is_bitwise_the_same(name, settings, tmp_path):
    env, agent = world(), make(name, settings, world().spec)
    moments = play(env, agent, env.reset(0))
    for _ in range(53):  # in the middle of episodes
        agent.learn(last := collect(moments, 1))
    checkpoint.save(tmp_path, "1", {**agent.state_dict(), "env": env.state_dict()})
    loaded = checkpoint.load(tmp_path / "1")
    other_env, other = world(), make(name, settings, world().spec, seed=9)
    other_env.reset(9)
    step = other_env.load_state_dict(loaded.pop("env"))
    other.load_state_dict(loaded)
    assert np.array_equal(step.observation, last.step.observation[1])
    others = play(other_env, other, step)
    for _ in range(60):
        left, right = agent.learn(collect(moments, 1)), other.learn(collect(others, 1))
        assert plain(left) == plain(right)
    assert plain(agent.state_dict()) == plain(other.state_dict())


@every_agent
def test_playing_without_exploring_changes_nothing_and_is_the_same_every_time(name, settings):
    env, agent = world(), make(name, settings, world().spec)
    lived(env, agent, 40)
    before, watched_actions = plain(agent.state_dict()), []
    for num_envs in (5, 5):
        other, actions = world(num_envs), []
        step = other.reset(1)
        for _ in range(20):
            decision = agent.act(step, explore=False)
            actions.append(decision.action.tolist())
            step = other.step(decision.action)
        watched_actions.append(actions)
        assert plain(agent.state_dict()) == before
        agent.act(env.step_now)  # learning goes on
        agent.load_state_dict(agent.state_dict())
        before = plain(agent.state_dict())
    assert watched_actions[0] == watched_actions[1]
    assert len(np.unique(watched_actions[0])) > 1


@every_agent
def test_learners_side_by_side_are_the_same_learners_alone(name, settings):
    if name in ("double_q_learning", "dyna_q"):
        settings = {**settings, "planning_steps": 0} if name == "dyna_q" else settings
    agent = make(name, settings, world(3).spec)
    trajectories = lived(world(3), agent, 80)
    for i in range(3):
        alone = make(name, settings, world(1).spec)
        if name == "double_q_learning":  # toss the coins that learner i saw
            alone.generator = Coins(make(name, settings, world(3).spec).generator, 3, i)
        for trajectory in trajectories:
            alone.learn(slice_of(trajectory, i))
        for table in ("q", "value", "count"):
            if table in agent.tables:
                assert np.array_equal(alone.tables[table][0], agent.tables[table][i]), table


class Coins:
    """The random numbers of one learner out of several."""

    def __init__(self, generator: np.random.Generator, num_learners: int, learner: int) -> None:
        self.generator, self.num_learners, self.learner = generator, num_learners, learner
        self.env = world(num_learners)

    def integers(self, high: int, size: int) -> Array:
        raise NotImplementedError
