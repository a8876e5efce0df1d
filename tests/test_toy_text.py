"""Laws of `envs/_toy_text.py`: tables, layouts and policies of Gymnasium's toy worlds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from test_model import best, uniform, values

from envs.gymnasium import Config
from rlplay.core import Layout, Mistake, Spec

SURE = {"is_slippery": False}


def spec(id: str, **options: Any) -> Spec:
    return Config(id=id, options=options).make().spec


class Own(gymnasium.Env):
    """A user's world with tables: two states and one action that mostly leads to the end."""

    def __init__(self, **changes: Any) -> None:
        self.observation_space, self.action_space = spaces.Discrete(2), spaces.Discrete(1)
        self.initial_state_distrib = [1.0, 0.0]
        self.P: Any = {
            0: {0: [(0.25, 0, 1.0, False), (0.75, 1, 5.0, True)]},
            1: {0: [(1.0, 1, 0.0, True)]},
        }
        for name, value in changes.items():
            setattr(self, name, value)

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        return 1, 5.0, True, False, {}


CHANGES: dict[str, dict[str, Any]] = {
    "Own": {},
    "Shifted": {
        "observation_space": spaces.Discrete(2, start=3),
        "action_space": spaces.Discrete(1, start=-1),
        "P": {3: {-1: [(0.25, 3, 1, False), (0.75, 4, 5, True)]}, 4: {-1: [(1, 4, 0, True)]}},
    },
    "Lists": {"P": [[[(0.25, 0, 1.0, False), (0.75, 1, 5.0, True)]], [[(1.0, 1, 0.0, True)]]]},
    "Wrong": {"P": {0: {0: [(0.25, 0, 1.0, False), (0.5, 1, 5.0, True)]}, 1: {0: []}}},
    "Short": {"P": {0: {0: [(1.0, 0, 1.0)]}, 1: {0: []}}},
    "Missing": {"P": {0: {0: []}}},
    "Outside": {"P": {0: {0: [(1.0, 2, 1.0, False)]}, 1: {0: []}}},
    "Pressure": {"P": 101_325.0},
    "Covariance": {"observation_space": spaces.Box(0, 1, (2,))},
    "Startless": {"initial_state_distrib": None},
}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    for name, changes in CHANGES.items():
        gymnasium.register(f"{name}-v0", entry_point=Own, kwargs=changes)
    yield
    for name in CHANGES:
        del gymnasium.registry[f"{name}-v0"]


# --- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "options"),
    [("FrozenLake-v1", {}), ("CliffWalking-v1", {}), ("CliffWalkingSlippery-v1", {})],
)
def test_tables_are_those_of_the_env_where_an_episode_goes_on(id, options):
    model = spec(id, **options).model
    theirs = gymnasium.make(id, **options).unwrapped.P  # type: ignore[attr-defined]
    for state in np.flatnonzero(~model.terminal):
        for action in range(4):
            pair = state * 4 + action
            part = slice(model.offsets[pair], model.offsets[pair + 1])
            mine: dict[Any, float] = {}
            columns = (model.next_state, model.reward, model.terminated, model.probability)
            for following, reward, over, probability in zip(*(c[part] for c in columns)):  # noqa: B905
                mine[int(following), float(reward), bool(over)] = probability
            other: dict[Any, float] = {}
            for probability, following, reward, over in theirs[state][action]:
                key = (int(following), float(reward), bool(over))
                other[key] = other.get(key, 0) + probability
            assert mine == pytest.approx(other)


@pytest.mark.parametrize(
    ("id", "options", "terminal"),
    [
        ("FrozenLake-v1", {}, [5, 7, 11, 12, 15]),
        ("FrozenLake-v1", SURE, [5, 7, 11, 12, 15]),
        ("CliffWalking-v1", {}, [47]),
        ("CliffWalkingSlippery-v1", {}, [47]),
        ("Taxi-v4", {}, [0, 85, 410, 475]),  # dropped off at R, G, Y and B
    ],
)
def test_states_that_end_an_episode_have_no_actions(id, options, terminal):
    assert np.flatnonzero(spec(id, **options).model.terminal).tolist() == terminal


@pytest.mark.parametrize(
    ("id", "options", "discount", "worth"),
    [
        ("FrozenLake-v1", {}, 1, 14 / 17),
        ("FrozenLake-v1", {}, 0.99, 0.5420259),  # as published for this map by many
        ("FrozenLake-v1", SURE, 0.9, 0.9**5),
        ("FrozenLake8x8-v1", {}, 1, 1),
        ("FrozenLake8x8-v1", SURE, 0.9, 0.9**13),
        ("CliffWalking-v1", {}, 1, -13),
    ],
)
def test_best_play_is_worth_what_is_known(id, options, discount, worth):
    model = spec(id, **options).model
    assert best(model, discount) @ model.start == pytest.approx(worth, abs=1e-6)


def test_taxi_is_worth_what_the_shortest_ways_are():
    """20 for the drop and -1 for each step before it, counted by a search of its own steps."""
    taxi: Any = gymnasium.make("Taxi-v4").unwrapped
    into: dict[int, list[int]] = {}
    steps, front = {}, []
    for state, actions in taxi.P.items():
        for ((_, following, reward, _),) in actions.values():
            if reward == 20:
                steps[state] = 1
                front.append(state)
            elif following != state:
                into.setdefault(following, []).append(state)
    for state in front:  # grows while it is read: breadth first
        for before in into.get(state, []):
            if before not in steps:
                steps[before] = steps[state] + 1
                front.append(before)
    model = spec("Taxi-v4").model
    worth = best(model, 1)
    for state in np.flatnonzero(model.start):
        assert worth[state] == pytest.approx(21 - steps[int(state)])
    assert worth @ model.start == pytest.approx(7.93)


def test_taxis_illegal_actions_are_not_in_its_tables():
    env = Config(id="Taxi-v4", num_envs=3).make()
    taxi: Any = gymnasium.make("Taxi-v4").unwrapped
    mask = env.spec.model.action_mask
    for state in np.flatnonzero(~env.spec.model.terminal):
        assert mask[state].tolist() == taxi.action_mask(int(state)).astype(bool).tolist()
    assert not mask.all()


def test_passenger_who_changes_his_mind_is_in_no_table():
    assert spec("Taxi-v4", fickle_passenger=True).model is None
    assert spec("Taxi-v4", is_rainy=True).model is not None


def test_random_play_on_ice_is_worth_what_an_absorbing_chain_gives():
    """The probability of reaching the goal before a hole, by the env's own table."""
    lake: Any = gymnasium.make("FrozenLake-v1").unwrapped
    chain, goal = np.zeros((16, 16)), np.zeros(16)
    for state, actions in lake.P.items():
        for outcomes in actions.values():
            for probability, following, reward, over in outcomes:
                goal[state] += probability * reward / 4
                chain[state, following] += 0 if over else probability / 4
    expected = np.linalg.solve(np.eye(16) - chain, goal)
    model = spec("FrozenLake-v1").model
    assert np.allclose(values(model, uniform(model), 1), expected, atol=1e-12)


# --- worlds of users -----------------------------------------------------------------------------


@pytest.mark.parametrize("id", ["Own-v0", "Shifted-v0", "Lists-v0"])
def test_users_world_with_tables_gives_them(id):
    model = spec(id).model
    assert model.terminal.tolist() == [False, True]
    assert model.probability.tolist() == [0.25, 0.75]
    assert model.reward.tolist() == [1, 5]
    assert model.next_state.tolist() == [0, 1]
    assert model.start.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("id", "says"),
    [
        ("Wrong-v0", r"action 0 in state 0 sum to 0\.75, not 1"),
        ("Short-v0", "the table P of Own is not"),
        ("Missing-v0", "the table P of Own is not"),
        ("Outside-v0", r"next states must be in 0\.\.1"),
    ],
)
def test_tables_that_are_wrong_are_a_mistake(id, says):
    with pytest.raises(Mistake, match=says) as caught:
        spec(id)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "id", ["Pressure-v0", "Covariance-v0", "Startless-v0", "CartPole-v1", "Blackjack-v1"]
)
def test_world_without_tables_has_no_model(id):
    assert spec(id).model is None


# --- layouts, names, policies --------------------------------------------------------------------


def laid_out(id: str, **options: Any) -> Layout:
    layout = spec(id, **options).layout
    assert layout is not None
    return layout


@pytest.mark.parametrize(
    ("id", "options"),
    [("FrozenLake-v1", SURE), ("FrozenLake8x8-v1", SURE), ("CliffWalking-v1", {})],
)
def test_arrows_and_names_say_where_the_moves_go(id, options):
    world = spec(id, **options)
    model, layout = world.model, world.layout
    state, action = np.divmod(model.pair, 4)
    gone = layout.cells[model.next_state, 1:] - layout.cells[state, 1:]
    free = (np.abs(gone).sum(1) == 1) & (model.reward > -100)
    assert free.sum() > 20
    assert np.array_equal(gone[free], layout.arrows[action[free]])
    names = {(-1, 0): "up", (0, 1): "right", (1, 0): "down", (0, -1): "left"}
    assert world.action_names == tuple(names[*arrow] for arrow in layout.arrows.tolist())


def test_marks_are_the_letters_of_the_map():
    assert laid_out("FrozenLake-v1").marks == {0: "S", 5: "H", 7: "H", 11: "H", 12: "H", 15: "G"}
    cliff = dict.fromkeys(range(37, 47), "C")
    assert laid_out("CliffWalking-v1").marks == {36: "S", **cliff, 47: "G"}
    assert laid_out("FrozenLake8x8-v1").cells[[9, 63]].tolist() == [[0, 1, 1], [0, 7, 7]]


def test_taxi_has_a_panel_for_each_passenger_and_destination():
    taxi: Any = gymnasium.make("Taxi-v4").unwrapped
    layout = laid_out("Taxi-v4")
    assert len(layout.panels) == 20
    assert len({tuple(cell) for cell in layout.cells.tolist()}) == 500
    state = taxi.encode(2, 3, 1, 2)  # the passenger at G, to go to Y
    assert layout.cells[state].tolist() == [6, 2, 3]
    assert layout.panels[6] == "at G, to Y"
    assert layout.panels[layout.cells[taxi.encode(0, 0, 4, 3), 0]] == "aboard, to B"
    assert len(layout.marks) == 80
    assert layout.marks[taxi.encode(4, 3, 0, 0)] == "B"
    assert spec("Taxi-v4").action_names[4:] == ("pick up", "drop off")


def hand(total: int, card: int, ace: int) -> int:
    return (total * 11 + card) * 2 + ace


def test_blackjack_is_drawn_as_in_figure_5_1():
    layout = laid_out("Blackjack-v1")
    assert layout.panels == ("no usable ace", "usable ace")
    assert layout.cells[hand(21, 1, 1)].tolist() == [1, 0, 0]
    assert layout.cells[hand(12, 10, 0)].tolist() == [0, 9, 9]
    drawn = layout.cells[layout.cells[:, 0] >= 0]
    assert len({tuple(cell) for cell in drawn.tolist()}) == len(drawn) == 200
    assert layout.labels[0][0] == "21"
    assert layout.labels[1][0] == "A"
    for outside in (hand(11, 5, 0), hand(22, 5, 0), hand(15, 0, 0)):
        assert layout.cells[outside, 0] == -1


def test_blackjacks_policy_sticks_on_20_and_21_only():
    world = spec("Blackjack-v1")
    policy = world.policies["stick_on_20"]
    assert world.action_names == ("stick", "hit")
    assert policy.shape == (704, 2)
    for total in range(32):
        assert policy[hand(total, 4, 0)].tolist() == ([1, 0] if total >= 20 else [0, 1])


@pytest.mark.parametrize("options", [{"sab": True}, {"sab": False, "natural": True}], ids=str)
def test_blackjack_is_played_by_the_rules_asked_for(options):
    env = Config(id="Blackjack-v1", num_envs=20, options=options).make()
    step, random = env.reset(0), np.random.default_rng(0)
    earned, seen = set(), set()
    for _ in range(400):
        step = env.step(random.integers(2, size=20) * (random.random(20) < 0.5))
        earned |= set(step.reward[:, 0].tolist())
        seen |= set(step.observation.tolist())
    assert earned == {-1, 0, 1} | ({1.5} if "natural" in options else set())
    assert env.spec.observation_space == spaces.Discrete(704)
    assert all(4 <= state // 22 <= 31 and 1 <= state // 2 % 11 <= 10 for state in seen)
    assert {state % 2 for state in seen} == {0, 1}
    env.close()


def test_other_worlds_have_no_layout_names_or_policies():
    world = spec("CartPole-v1")
    assert (world.layout, world.action_names, dict(world.policies)) == (None, (), {})
