"""Laws of `rlplay/markov.py`; and of every world with tables: it is played as they say."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest

from envs import gamblers_problem, gridworld, gymnasium, jacks_car_rental, random_walk
from rlplay import checkpoint
from rlplay.core import Array, Env, Mistake, Step
from rlplay.markov import MarkovEnv
from rlplay.model import Model

# 0 -> 0 or 1; 1 -> the end in 2, where actions are left, or 3, where none is; only 0 has two.
ROWS = [
    (0, 0, 0, 1.0, -1.0, False),
    (0, 1, 0, 0.25, -1.0, False),
    (0, 1, 1, 0.75, 2.0, False),
    (1, 1, 2, 0.5, 10.0, True),
    (1, 1, 3, 0.5, 4.0, False),
    (2, 0, 0, 1.0, 0.0, False),
]
MODEL = Model.of(4, 2, ROWS, np.array([0.5, 0.25, 0.25, 0.0]))


def random_legal(step: Step, random: np.random.Generator) -> Array:
    return np.where(step.action_mask, random.random(step.action_mask.shape), -1).argmax(1)


def play(env: Env, num_steps: int, seed: int = 0, step: Step | None = None) -> list[Step]:
    random = np.random.default_rng(seed)
    steps = [env.reset(seed) if step is None else step]
    for _ in range(num_steps):
        steps.append(env.step(random_legal(steps[-1], random)))
    return steps


def same(left: Step, right: Step) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left[:8], right[:8], strict=True))


# --- what is played is what the tables say -------------------------------------------------------


class Evidence(NamedTuple):
    impossible: int  # transitions seen that have no row
    largest: float  # of the standardised deviations of how often each transition was seen
    spread: float  # their mean square, 1 where the tables are right
    num_cells: int  # transitions that were seen often enough to count
    reward: float  # mean square of the standardised deviations of the mean reward of each pair


def evidence(env: Env, model: Model, num_steps: int) -> Evidence:
    """Play at random and weigh what happened against a model."""
    random = np.random.default_rng(5)
    step, seen = env.reset(1), []
    for _ in range(num_steps):
        action = random_legal(step, random)
        following = env.step(action)
        pair = step.observation * model.num_actions + action
        columns = pair, following.observation, following.terminated, following.reward[:, 0]
        seen.append(np.stack(columns, 1)[~step.done])
        step = following
    whole = np.concatenate(seen)
    (pair, arrived, over), reward = whole[:, :3].astype(np.int64).T, whole[:, 3]

    # A transition is what it leads to and what it earns, where that is certain.
    earned = np.unique(model.reward.astype(np.float32))
    certain = len(earned) < 20
    earned = earned if certain else np.zeros(1)

    def keys(pair: Array, arrived: Array, over: Array, reward: Array) -> Array:
        kind = np.minimum(np.searchsorted(earned, reward), len(earned) - 1)
        key = ((pair * model.num_states + arrived) * 2 + over) * len(earned) + kind
        return np.where((earned[kind] == reward) | (not certain), key, -1)

    ends = model.terminated | model.terminal[model.next_state]
    written = keys(model.pair, model.next_state, ends, model.reward.astype(np.float32))
    written, row = np.unique(written, return_inverse=True)
    probability = np.bincount(row, model.probability)
    lived = keys(pair, arrived, over, reward)
    place = np.minimum(np.searchsorted(written, lived), len(written) - 1)
    found = written[place] == lived
    visits = np.bincount(pair, minlength=model.num_states * model.num_actions)
    expected = visits[written // (2 * len(earned) * model.num_states)] * probability
    variance = expected * (1 - probability)
    enough = variance > 4
    deviation = np.bincount(place[found], minlength=len(written)) - expected
    z = deviation[enough] / np.sqrt(variance[enough])
    left = reward - model.expected_reward.ravel()[pair]
    often = visits >= 30
    mean, square = (
        np.bincount(pair, x, len(visits)) / np.maximum(visits, 1) for x in (left, left**2)
    )
    error = (square - mean**2 + 1e-9) / np.maximum(visits, 1)
    return Evidence(
        impossible=int((~found).sum()),
        largest=float(np.abs(z).max(initial=0)),
        spread=float((z**2).mean()) if len(z) else 1.0,
        num_cells=len(z),
        reward=1.0 if certain else float((mean**2 / error)[often].mean()),
    )


def agrees(found: Evidence) -> bool:
    return (
        found.impossible == 0
        and found.largest < 5
        and abs(found.spread - 1) < 6 * np.sqrt(2 / max(found.num_cells, 1))
        and abs(found.reward - 1) < 0.2
    )


OWN = ("S..X.", ".#..G", "...C.", "S....")
WORLDS: dict[str, Any] = {
    **{f"gridworld {name}": gridworld.Config(map=name) for name in gridworld.MAPS},
    **{f"slippery {m}": gridworld.Config(map=m, slip=0.3) for m in (*gridworld.MAPS, OWN)},
    "strong wind": gridworld.Config(map=OWN, slip=0.2, wind=(1, 0, -2, 0, 0), start="anywhere"),
    "random walk": random_walk.Config(num_states=9, left_reward=-1),
    "gambler": gamblers_problem.Config(goal=20),
    "gambler, 100": gamblers_problem.Config(heads=0.55),
    "Jack": jacks_car_rental.Config(),
    "Jack, modified": jacks_car_rental.Config(modified=True),
    "FrozenLake": gymnasium.Config(id="FrozenLake-v1"),
    "FrozenLake 8x8": gymnasium.Config(id="FrozenLake8x8-v1"),
    "FrozenLake, frozen": gymnasium.Config(id="FrozenLake-v1", options={"is_slippery": False}),
    "CliffWalking": gymnasium.Config(id="CliffWalking-v1", max_steps=200),
    "CliffWalking, slippery": gymnasium.Config(id="CliffWalkingSlippery-v1", max_steps=200),
    "Taxi": gymnasium.Config(id="Taxi-v4"),
    "Taxi in the rain": gymnasium.Config(id="Taxi-v4", options={"is_rainy": True}),
}
CERTAIN = {"CliffWalking", "Taxi", "FrozenLake, frozen", "random walk"} | {
    f"gridworld {name}" for name in gridworld.MAPS
}


@pytest.mark.parametrize("name", WORLDS)
def test_world_is_played_as_its_tables_say(name):
    config = WORLDS[name]
    num_envs, num_steps = (10, 2500) if isinstance(config, gymnasium.Config) else (1000, 200)
    env = dataclasses.replace(config, num_envs=num_envs).make()
    found = evidence(env, env.spec.model, num_steps)
    assert agrees(found), found
    assert (found.num_cells == 0) == (name in CERTAIN), found
    env.close()


@pytest.mark.parametrize("name", WORLDS)
def test_episodes_begin_as_the_tables_say(name):
    config = WORLDS[name]
    num_envs, num_seeds = (1, 1500) if isinstance(config, gymnasium.Config) else (5000, 5)
    env = dataclasses.replace(config, num_envs=num_envs).make()
    begun = np.concatenate([env.reset(seed).observation for seed in range(num_seeds)])
    likely = env.spec.model.start
    counts = np.bincount(begun, minlength=len(likely))
    assert not counts[likely == 0].any()
    error = np.sqrt(len(begun) * likely * (1 - likely))
    assert (np.abs(counts - len(begun) * likely) <= 5 * error).all()
    env.close()


@pytest.mark.parametrize(
    ("played", "written", "why"),
    [
        (gridworld.Config(map="cliff", slip=0.3), gridworld.Config(map="cliff", slip=0.32), "z"),
        (gridworld.Config(map="windy"), gridworld.Config(map="windy", wind=(0,) * 10), "row"),
        (gridworld.Config(map="maze"), gridworld.Config(map="maze", goal_reward=1), "row"),
        (gamblers_problem.Config(heads=0.45), gamblers_problem.Config(), "z"),
        (jacks_car_rental.Config(), jacks_car_rental.Config(modified=True), "reward"),
    ],
    ids=["slip", "wind", "goal", "heads", "parking"],
)
def test_other_tables_are_found_out(played, written, why):
    """The negative control of the law above."""
    env = dataclasses.replace(played, num_envs=1000).make()
    found = evidence(env, written.make().spec.model, 200)
    assert not agrees(found)
    assert {"row": found.impossible, "z": found.spread > 1.2, "reward": found.reward > 1.2}[why]


def test_what_has_no_probability_never_happens():
    """Also where it stands last, and where the sums of the others miss one by a rounding error."""
    model = Model(
        num_states=3,
        num_actions=1,
        offsets=np.array([0, 5, 5, 5]),
        next_state=np.array([1, 2, 1, 1, 2], np.int32),
        probability=np.array([0.1, 0, 0.2, 0.7, 0]) * (1 - 5e-10),
        reward=np.array([0.0, 1, 0, 0, 1]),
        terminated=np.zeros(5, bool),
        start=np.array([1.0, 0, 0]),
    )
    env = MarkovEnv(model, 5000)
    assert env._sums[-1] == env._sums[3] == 1
    assert not any(step.reward.any() for step in play(env, 100))


# --- episodes ------------------------------------------------------------------------------------


def test_episode_ends_by_the_flag_or_where_nothing_is_legal():
    env = MarkovEnv(MODEL, 500)
    steps = play(env, 50)
    for before, after in pairwise(steps):
        began = before.done
        ended = ~began & (before.observation == 1)
        assert np.array_equal(after.terminated, ended)
        assert set(after.observation[ended]) <= {2, 3}
        assert np.isin(after.observation[began], [0, 1, 2]).all()
        assert not after.reward[began].any()
    assert any((step.observation[step.terminated] == 3).any() for step in steps)


def test_all_actions_are_allowed_where_it_is_over_and_those_of_the_tables_elsewhere():
    steps = play(MarkovEnv(MODEL, 500), 20)
    legal = np.array([[True, True], [False, True], [True, False], [True, True]])
    for step in steps:
        assert np.array_equal(step.action_mask, legal[step.observation])
    assert not all(step.action_mask.all() for step in steps)


@pytest.mark.parametrize("max_steps", [0, 1, 3])
def test_time_limit_truncates_and_never_what_ended(max_steps):
    env = MarkovEnv(MODEL, 500, max_steps=max_steps)
    age = np.zeros(500, int)
    steps = play(env, 30)
    for before, after in pairwise(steps):
        age = np.where(before.done, 0, age + 1)
        late = (age == max_steps) & (max_steps > 0)
        assert np.array_equal(after.truncated, late & ~after.terminated)
        assert np.array_equal(after.discount, 1 - after.terminated)
        assert not max_steps or (age <= max_steps).all()
    assert any(step.truncated.any() for step in steps) == (max_steps > 0)
    assert any(step.terminated.any() for step in steps)


def test_illegal_action_raises_and_changes_nothing():
    env = MarkovEnv(MODEL, 3)
    env.reset(1)
    env.load_state_dict({**env.state_dict(), "state": np.array([0, 1, 0])})
    before = env.state_dict()["generator"]
    with pytest.raises(ValueError, match="actions must be legal, and 0 is not in state 1 of env 1"):
        env.step(np.array([0, 0, 0]))
    with pytest.raises(ValueError, match=r"actions must be in 0\.\.1"):
        env.step(np.array([0, 2, 0]))
    assert env.state_dict()["generator"] == before
    step = env.step(np.array([0, 1, 0]))
    assert step.terminated.tolist() == [False, True, False]
    env.step(np.array([0, 0, 0]))  # after the end, whatever is wanted is ignored


def test_episode_that_would_begin_at_its_end_is_a_mistake():
    with pytest.raises(Mistake, match="cannot begin in state 3"):
        MarkovEnv(dataclasses.replace(MODEL, start=np.array([0.5, 0, 0, 0.5])), 1)


# --- seeds, saving, pictures ---------------------------------------------------------------------


def test_same_seed_is_the_same_play_and_envs_side_by_side_differ():
    one, two = MarkovEnv(MODEL, 50), MarkovEnv(MODEL, 50)
    play(two, 7, seed=3)
    pairs = zip(play(one, 40), play(two, 40), strict=True)
    assert all(same(left, right) for left, right in pairs)
    assert not same(one.reset(0), one.reset(1))
    assert len({tuple(s.observation[i] for s in play(one, 40)) for i in range(50)}) > 40


def test_world_is_restored_bitwise_at_every_moment(tmp_path):
    env, other = MarkovEnv(MODEL, 20, max_steps=4), MarkovEnv(MODEL, 20, max_steps=4)
    step, moments = env.reset(0), 0
    for part in range(12):
        checkpoint.save(tmp_path, str(part), {"env": env.state_dict()})
        other.reset(9)
        restored = other.load_state_dict(checkpoint.load(tmp_path / str(part))["env"])
        assert same(step, restored)
        pairs = zip(play(env, 11, part, step), play(other, 11, part, restored), strict=True)
        for left, right in pairs:
            assert same(left, right)
            step = left
        moments += bool(step.truncated.any()) + bool(step.terminated.any())
    assert moments > 4, "it was never saved at the end of an episode"
    with pytest.raises(Mistake, match=r"set env\.num_envs=20"):
        MarkovEnv(MODEL, 3).load_state_dict(env.state_dict())


def test_world_that_was_not_restored_plays_on_differently():
    """The negative control of the law above."""
    env, other = MarkovEnv(MODEL, 20), MarkovEnv(MODEL, 20)
    step = play(env, 30)[-1]
    state = {**env.state_dict(), "generator": np.random.default_rng(7).bit_generator.state}
    other.reset(9)
    restored = other.load_state_dict(state)
    pairs = zip(play(env, 30, 0, step), play(other, 30, 0, restored), strict=True)
    assert not all(same(left, right) for left, right in pairs)


def test_picture_is_of_the_episode_that_env_0_is_in():
    drawn: list[list[int]] = []

    def draw(path: list[int]) -> Array:
        drawn.append(list(path))
        return np.zeros((2, 2, 3), np.uint8)

    env, plain = MarkovEnv(MODEL, 2, draw=draw), MarkovEnv(MODEL, 2)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.render()
    random = np.random.default_rng(0)
    step, path = env.reset(0), [env.reset(0).observation[0]]
    for _ in range(40):
        env.render()
        assert drawn[-1] == path
        done = step.done[0]
        step = env.step(random_legal(step, random))
        path = [*([] if done else path), step.observation[0]]
    assert max(map(len, drawn)) > 2
    plain.reset(0)
    with pytest.raises(RuntimeError, match="render=True"):
        plain.render()
