"""The laws that every agent keeps: each file in agents/, by discovery, in small worlds."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from envs import bandit, gridworld, tictactoe
from envs import gymnasium as worlds
from rlplay import checkpoint, config, search
from rlplay import settings as settings_
from rlplay.core import Agent, Env, Mistake, Spec, State, Step
from rlplay.nets import encoders
from rlplay.play import collect, play

NAMES = config.names("agents")
SMALL = {
    "hidden": 8,
    "horizon": 8,
    "epochs": 2,
    "num_episodes": 2,
    "hyperparameters": {"n_steps": 8, "batch_size": 8, "n_epochs": 2},
    "policy_kwargs": {"net_arch": (8,)},
    "batch_size": 4,
    "learning_starts": 16,
    "replay_size": 200,
    "target_every": 8,
    "epsilon_steps": 100,
    "device": "cpu",
    "blocks": 1,
    "channels": 4,
    "search": search.Config(num_simulations=4),
    "num_simulations": 4,
    "num_simulations_evaluation": 4,
}


class Blinker:
    """N small screens, 3 frames of 36 x 36, of which some buttons can be pressed at any time."""

    def __init__(self, num_envs: int) -> None:
        space = Box(0, 255, (3, 36, 36), np.uint8)
        self.spec = Spec(num_envs, space, Discrete(5), num_stacked=3)

    def reset(self, seed: int) -> Step:
        self.random, self.time = np.random.default_rng(seed), 0
        n = self.spec.num_envs
        self.frames = np.zeros((n, 3, 36, 36), np.uint8)
        return self.show(np.zeros(n, np.float32), np.ones(n, bool))

    def step(self, action: np.ndarray) -> Step:
        assert self.mask[np.arange(self.spec.num_envs), action].all(), "an illegal action"
        self.time += 1
        started = self.time % 7 == 0
        return self.show(np.float32(action == 2) * (not started), np.full(len(action), started))

    def show(self, reward: np.ndarray, started: np.ndarray) -> Step:
        n = self.spec.num_envs
        self.frames[:, :2] = np.where(started[:, None, None, None], 0, self.frames[:, 1:])
        self.frames[:, 2] = self.random.integers(256, size=(n, 36, 36))
        self.mask = self.random.random((n, 5)) < 0.5
        self.mask[np.arange(n), self.random.integers(5, size=n)] = True
        return Step.at(
            self.frames.copy(),
            5,
            action_mask=self.mask,
            reward=reward[:, None],
            terminated=np.full(n, self.time % 7 == 6),
        )


def cartpole(num_envs: int = 2) -> Any:
    return worlds.Config(num_envs=num_envs).make()


def arms(num_envs: int = 2) -> Any:
    return bandit.Config(num_envs=num_envs, reward="bernoulli", num_arms=4, max_steps=9).make()


def digits(num_envs: int = 2) -> Any:
    return bandit.Config(num_envs=num_envs, contexts="digits", max_steps=9).make()


def grid(num_envs: int = 2) -> Any:
    return gridworld.Config(num_envs=num_envs, max_steps=9).make()


def board(num_envs: int = 2) -> Any:
    return tictactoe.Config(num_envs=num_envs).make()


WORLDS = {
    "cartpole": cartpole,
    "pictures": Blinker,
    "arms": arms,
    "digits": digits,
    "grid": grid,
    "board": board,
}
MLP = encoders.Config(name="mlp", hidden=(8,))
ENCODERS = {name: MLP for name in WORLDS} | {
    "pictures": encoders.Config(name="nature", width=0.1),
}
pytestmark = pytest.mark.parametrize(("name", "world"), [*itertools.product(NAMES, WORLDS)])


def settings(name: str, world: str) -> Any:
    """Return settings of an agent that are small, where it has them."""
    default = config.plugin("agents", name).Config()
    known = {field.name for field in dataclasses.fields(default)}
    changes = SMALL | {"encoder": ENCODERS[world]}
    return dataclasses.replace(default, **{k: v for k, v in changes.items() if k in known})


def make(name: str, world: str, seed: int = 0, learns: bool = True, num_envs: int = 2) -> Any:
    """Return an env and an agent for it; skip the test where the agent cannot play there."""
    env = WORLDS[world](num_envs)
    try:
        return env, settings(name, world).make(env.spec, seed, learns=learns)
    except Mistake as mistake:
        pytest.skip(str(mistake))


def learned(env: Env, agent: Agent, num_trajectories: int = 20) -> list[dict[str, Any]]:
    moments = play(env, agent, env.reset(0))
    metrics = [agent.learn(collect(moments, agent.horizon)) for _ in range(num_trajectories)]
    return [
        {name: plain(value) for name, value in named.items() if not name.startswith("time/")}
        for named in metrics
    ]


def chosen(env: Env, agent: Agent, explore: bool, num_steps: int = 30) -> list[list[Any]]:
    """Return the agent's actions in a world of its own kind, from the start."""
    moments = itertools.islice(play(env, agent, env.reset(1), explore), num_steps)
    return [moment.decision.action.tolist() for moment in moments]


def plain(state: Any) -> Any:
    """Return a saved state with its arrays as bytes, so that states can be compared."""
    if isinstance(state, dict):
        return {name: plain(part) for name, part in state.items()}
    return (state.dtype, state.shape, state.tobytes()) if isinstance(state, np.ndarray) else state


def test_it_plays_somewhere_and_says_so_where_it_cannot(name, world):
    refusals = []
    for one in WORLDS:
        try:
            settings(name, one).make(WORLDS[one](1).spec, 0)
        except Mistake as mistake:
            refusals.append(str(mistake))
    assert len(refusals) < len(WORLDS), f"{name} can play in none of these worlds"
    assert all(len(refusal.splitlines()) == 1 for refusal in refusals)


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_decisions_are_legal_and_every_note_is_by_env(name, world, explore, num_envs):
    env, agent = make(name, world, num_envs=num_envs)
    moments = play(env, agent, env.reset(0), explore)
    for moment in itertools.islice(moments, 40):
        action, notes = moment.decision
        assert isinstance(action, np.ndarray)
        assert action.shape == (num_envs,)
        assert action.dtype == np.int64
        assert moment.step.action_mask[np.arange(num_envs), action].all()
        for note, value in notes.items():
            assert isinstance(value, np.ndarray), note
            assert len(value) == num_envs, note
            assert np.isfinite(value).all(), note


def test_learning_returns_numbers_by_name(name, world):
    env, agent = make(name, world)
    assert agent.horizon >= 1
    moments = play(env, agent, env.reset(0))
    for _ in range(20):
        for metric, value in agent.learn(collect(moments, agent.horizon)).items():
            assert "/" in metric
            if isinstance(value, np.ndarray):  # a number for each of the runs side by side
                assert (value.shape, value.dtype) == ((env.spec.num_envs,), np.float64), metric
            else:
                assert isinstance(value, int | float), metric
                assert not isinstance(value, np.generic), metric
            assert np.isfinite(value).all(), metric


def test_same_seed_plays_and_learns_the_same(name, world):
    trails = []
    for _ in range(2):
        env, agent = make(name, world, seed=3)
        trails.append((learned(env, agent), chosen(env, agent, explore=True)))
    assert trails[0] == trails[1]


def test_saved_agent_plays_on_the_same(name, world, tmp_path):
    env, agent = make(name, world)
    learned(env, agent)
    state: State = agent.state_dict()
    assert {*state} <= {"weights", "replay", "agent"}
    checkpoint.save(tmp_path, "1", state)
    loaded = checkpoint.load(tmp_path / "1")
    _, other = make(name, world, seed=5)
    other.load_state_dict(loaded)
    assert plain(dict(other.state_dict())) == plain(dict(agent.state_dict()))
    for explore in (False, True):
        assert chosen(env, agent, explore) == chosen(env, other, explore)
    assert learned(env, agent, 5) == learned(env, other, 5)


def test_agent_that_only_plays_takes_over_what_another_learned(name, world):
    env, agent = make(name, world)
    learned(env, agent)
    _, player = make(name, world, seed=5, learns=False)
    player.load_state_dict({k: v for k, v in agent.state_dict().items() if k != "replay"})
    assert chosen(env, agent, explore=False) == chosen(env, player, explore=False)


def test_acting_without_exploring_changes_nothing_that_is_saved(name, world):
    """So that a run goes on the same, however often it was evaluated or drawn on the way."""
    env, agent = make(name, world)
    learned(env, agent)
    before = plain(copy.deepcopy(dict(agent.state_dict())))
    chosen(WORLDS[world](2), agent, explore=False)
    assert plain(dict(agent.state_dict())) == before


def test_world_that_starts_anew_is_no_trouble(name, world):
    env, agent = make(name, world)
    agent.cut()
    learned(env, agent, 10)
    agent.cut()
    learned(env, agent, 10)


def test_it_acts_while_it_learns_or_says_that_it_cannot(name, world):
    env, agent = make(name, world)
    try:
        actor = agent.actor()
    except Mistake as mistake:
        actor, refusal = agent, str(mistake)
    if actor is agent:
        assert "collect_ahead=false" in refusal
        assert len(refusal.splitlines()) == 1
        return
    before = chosen(env, actor, explore=False)
    learned(env, agent)
    assert chosen(env, actor, explore=False) == before
    assert agent.actor() is actor
    assert chosen(env, actor, explore=False) == chosen(env, agent, explore=False)


def test_default_settings_can_be_written_down_and_read_again(name, world):
    kind = config.plugin("agents", name).Config
    assert settings_.convert(kind, settings_.to_dict(kind()), "x.yaml", "agent") == kind()


def test_settings_carry_the_files_name(name, world):
    assert config.plugin("agents", name).Config().name == name
    assert config.about("agents", name)
