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


class Coins:
    """Random numbers known beforehand: `sides` [T, N] of T tosses by N learners."""

    def __init__(self, sides: Array) -> None:
        self.tosses = iter(sides)

    def integers(self, high: int, size: int) -> Array:
        side = next(self.tosses)
        assert (high, size) == (2, len(side))
        return side


@every_agent
def test_learners_side_by_side_are_the_same_learners_alone(name, settings):
    settings = {"planning_steps": 0, "kappa": 0.0} if name == "dyna_q" else settings
    source = make(name, settings, world().spec)
    if name != "off_policy_monte_carlo":  # which notes how likely each action was
        source = Uniform(world().spec, 0)
    trajectories = lived(world(), source, 80)
    sides = np.random.default_rng(0).integers(2, size=(80, 3))
    together = make(name, settings, world().spec)
    alone = [make(name, settings, world(1).spec) for _ in range(3)]
    for agent, columns in [(together, [0, 1, 2]), *((alone[i], [i]) for i in range(3))]:
        if name == "double_q_learning":
            agent.generator = Coins(sides[:, columns])
        for trajectory in trajectories:
            agent.learn(of_envs(trajectory, columns))
    for table in together.tables:
        for i in range(3):
            assert np.array_equal(alone[i].tables[table][0], together.tables[table][i]), table
    first, other = (together.tables["q" if "q" in together.tables else "value"][i] for i in (0, 1))
    assert not np.array_equal(first, other)


@every_agent
def test_world_that_starts_anew_leaves_no_loose_ends(name, settings):
    """What was under way when the world was cut off teaches nothing: a learner that went through
    it, and one that did not, are the same after an episode that both see."""
    if name == "off_policy_monte_carlo":
        settings = {**settings, "epsilon": 1.0}  # so that both play alike
    cut, fresh = (make(name, settings, world(1).spec) for _ in range(2))
    moments = play(world(1), cut, world(1).reset(0))
    env = world(1)
    moments = play(env, cut, env.reset(0))
    trajectories = [collect(moments, 1) for _ in range(60)]
    starts = [0, *(t + 2 for t, one in enumerate(trajectories) if one.step.done[1, 0])]
    episodes = [trajectories[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    long, short = (max(episodes, key=len), episodes[0])
    num_under_way = len(long) - 2  # not the step that ends it, nor the one after
    assert num_under_way > 1
    for trajectory in long[:num_under_way]:
        cut.learn(trajectory)
    tables = {table: array.copy() for table, array in cut.tables.items()}
    cut.cut()
    fresh.tables = {table: array.copy() for table, array in tables.items()}
    fresh.memory |= {k: v.copy() for k, v in cut.memory.items() if k in ("time", "num_seen")}
    fresh.generator.bit_generator.state = cut.generator.bit_generator.state
    for agent in (cut, fresh):
        for trajectory in short:
            agent.learn(trajectory)
    assert plain(cut.tables) == plain(fresh.tables)


@every_agent
def test_tables_that_grow_hold_what_tables_of_all_states_hold(name, settings):
    if settings.get("policy") == "optimal":
        pytest.skip("a world of so many states has no table of a policy")
    env, code = world(), np.array([7, 0, 10**12, 5, 3, 10**9, 1])
    hidden = dataclasses.replace(env.spec, observation_space=Discrete(10**12 + 1), model=None)
    agent = make(name, settings, dataclasses.replace(env.spec, model=None))
    other = make(name, settings, hidden)
    assert not other.enumerated
    for table, array in other.tables.items():  # of so few rows that they must grow
        other.tables[table] = array[:, :2].copy()
    step = env.reset(0)
    for _ in range(60):
        other_step = step._replace(observation=code[step.observation])
        decision, other_decision = agent.act(step), other.act(other_step)
        assert np.array_equal(decision.action, other_decision.action)
        step = env.step(decision.action)
        seen = np.stack([other_step.observation, code[step.observation]])
        trajectory = collect(iter([Moment(step_before, decision, step)]), 1)
        agent.learn(trajectory)
        other.learn(trajectory._replace(step=trajectory.step._replace(observation=seen)))
