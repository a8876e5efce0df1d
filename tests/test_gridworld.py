"""Laws of `envs/gridworld.py`: every letter of a map, wind, slips, the book's values, mistakes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from test_model import best, uniform, values

from envs.gridworld import MAPS, WINDS, Config
from rlplay import config
from rlplay.core import Array, Layout, Mistake
from rlplay.palette import AMBER

UP, RIGHT, DOWN, LEFT = range(4)


def walked(world: Config, actions: list[int]) -> list[tuple[tuple[int, int], float, bool]]:
    """Return the cell, the reward and whether it is over, after each action of one episode."""
    env = world.make()
    cells = at(env.spec.layout)
    env.reset(0)
    trail = []
    for action in actions:
        step = env.step(np.array([action]))
        cell = tuple(cells[step.observation[0]].tolist())
        trail.append((cell, float(step.reward[0, 0]), bool(step.terminated[0])))
    return trail


def at(layout: Layout | None) -> Array:  # [S, 2] row and column
    assert layout is not None
    assert (layout.cells[:, 0] == 0).all()
    return layout.cells[:, 1:]


def leads_to(world: Config) -> dict[tuple[int, int, int], dict[tuple[int, int], float]]:
    """Return by row, column and action the cells that it leads to, with their probabilities."""
    env = world.make()
    model, cells = env.spec.model, at(env.spec.layout)
    ways: dict[Any, dict[Any, float]] = {}
    for pair, following, probability in zip(
        model.pair, model.next_state, model.probability, strict=True
    ):
        state, action = divmod(int(pair), 4)
        cell = tuple(cells[following].tolist())
        place = ways.setdefault((*cells[state].tolist(), action), {})
        place[cell] = place.get(cell, 0) + probability
    return ways


# --- letters -------------------------------------------------------------------------------------


def test_walls_and_edges_stop_a_move():
    world = Config(map=("S.#", "..G"))
    trail = walked(world, [UP, LEFT, RIGHT, RIGHT, UP, DOWN, LEFT, LEFT, DOWN])
    cells = [(0, 0), (0, 0), (0, 1), (0, 1), (0, 1), (1, 1), (1, 0), (1, 0), (1, 0)]
    assert [cell for cell, _, _ in trail] == cells
    assert {reward for _, reward, _ in trail} == {-1}
    assert not any(over for _, _, over in trail)


@pytest.mark.parametrize("pit_reward", [-100.0, -7.0])
def test_every_letter_does_what_it_says(pit_reward):
    world = Config(map=("SC", ".X", ".G"), pit_reward=pit_reward, goal_reward=5, step_reward=-2)
    assert walked(world, [DOWN, UP, RIGHT]) == [
        ((1, 0), -2, False),
        ((0, 0), -2, False),
        ((0, 0), pit_reward, False),  # off the cliff and back to the start, and it goes on
    ]
    assert walked(world, [DOWN, RIGHT])[-1] == ((1, 1), pit_reward, True)
    assert walked(world, [DOWN, DOWN, RIGHT])[-1] == ((2, 1), 3, True)


def test_nobody_stands_on_a_cliff_and_terminal_states_have_no_actions():
    env = Config(map=("SC.", ".X.", "..G")).make()
    assert env.spec.layout.marks == {0: "S", 1: "C", 4: "X", 8: "G"}
    assert np.flatnonzero(env.spec.model.terminal).tolist() == [1, 4, 8]
    assert not np.isin(env.spec.model.next_state, [1]).any()


def test_states_are_the_cells_that_are_no_wall_in_reading_order():
    env = Config(map=("..G", "S##")).make()
    assert at(env.spec.layout).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0]]
    assert env.spec.observation_space.n == 4


def test_episodes_begin_at_every_start_or_anywhere_on_the_floor():
    rows = ("S..", "#XS", "C.G")
    start = Config(map=rows).make().spec.model.start
    assert start.tolist() == [0.5, 0, 0, 0, 0.5, 0, 0, 0]
    start = Config(map=rows, start="anywhere").make().spec.model.start
    assert start.tolist() == [0.2, 0.2, 0.2, 0, 0.2, 0, 0.2, 0]
    without = tuple(row.replace("S", ".").replace("C", ".") for row in rows)
    start = Config(map=without).make().spec.model.start
    assert start.tolist() == [1 / 6, 1 / 6, 1 / 6, 0, 1 / 6, 1 / 6, 1 / 6, 0]


def test_a_cliff_puts_back_to_any_of_the_starts():
    ways = leads_to(Config(map=("S.C", "S.G"), start="anywhere"))
    assert ways[0, 1, RIGHT] == {(0, 0): 0.5, (1, 0): 0.5}


# --- slips and wind ------------------------------------------------------------------------------


def test_slip_goes_to_either_side_and_never_back():
    ways = leads_to(Config(map=("...", ".S.", "..G"), slip=0.2))
    assert ways[1, 1, UP] == pytest.approx({(0, 1): 0.8, (1, 0): 0.1, (1, 2): 0.1})
    assert ways[1, 1, LEFT] == pytest.approx({(1, 0): 0.8, (0, 1): 0.1, (2, 1): 0.1})
    assert ways[0, 0, UP] == pytest.approx({(0, 0): 0.9, (0, 1): 0.1})
    assert leads_to(Config(map=("...", ".S.", "..G")))[1, 1, UP] == {(0, 1): 1.0}
    assert leads_to(Config(map=("...", ".S.", "..G"), slip=1))[1, 1, UP] == {
        (1, 0): 0.5,
        (1, 2): 0.5,
    }


def test_wind_is_that_of_the_column_left_and_stops_at_walls_and_edges():
    rows = ("..#.", "....", "S...", "...G")
    ways = leads_to(Config(map=rows, wind=(0, 1, 2, -1), start="map"))
    assert ways[3, 0, RIGHT] == {(3, 1): 1.0}  # no wind where it came from
    assert ways[3, 1, RIGHT] == {(2, 2): 1.0}
    assert ways[3, 1, LEFT] == {(2, 0): 1.0}
    assert ways[3, 1, UP] == {(1, 1): 1.0}
    assert ways[3, 1, DOWN] == {(3, 1): 1.0}  # the move down and the wind cancel out
    assert ways[3, 2, LEFT] == {(1, 1): 1.0}
    assert ways[3, 2, UP] == {(1, 2): 1.0}  # three cells up, the last of them a wall
    assert ways[1, 2, RIGHT] == {(0, 3): 1.0}
    assert ways[0, 3, DOWN] == {(2, 3): 1.0}  # wind from above
    assert ways[2, 3, UP] == {(2, 3): 1.0}
    assert ways[0, 3, LEFT] == {(1, 3): 1.0}  # a wall in the way, and the wind all the same


def test_windy_map_is_moved_as_the_book_adds_it_up():
    """Row and column shifted by move and wind, then kept on the map: example 6.5."""
    wind = WINDS["windy"]
    moves = [(-1, 0), (0, 1), (1, 0), (0, -1)]
    for (row, column, action), cells in leads_to(Config(map="windy")).items():
        down, right = moves[action]
        expected = np.clip(row + down - wind[column], 0, 6), np.clip(column + right, 0, 9)
        assert cells == {expected: 1.0}
    assert leads_to(Config(map="windy")) != leads_to(Config(map="windy", wind=(0,) * 10))


# --- the book's numbers --------------------------------------------------------------------------


def test_random_policy_on_the_4x4_grid_is_worth_what_figure_4_1_says():
    model = Config().make().spec.model
    expected = [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0]
    assert np.allclose(values(model, uniform(model), 1), expected, atol=1e-9)
    slippery = Config(slip=0.2).make().spec.model  # at random, slips change nothing
    assert np.allclose(values(slippery, uniform(slippery), 1), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "discount", "worth"),
    [
        ({"map": "windy"}, 1, -15),
        ({"map": "cliff"}, 1, -13),
        ({"map": "maze"}, 1, -14),
        ({"map": "maze", "step_reward": 0.0, "goal_reward": 1.0}, 0.95, 0.95**13),
        ({"map": "windy", "wind": (0,) * 10}, 1, -7),
    ],
    ids=["windy", "cliff", "maze", "maze of figure 8.2", "windy without wind"],
)
def test_best_way_from_the_start_is_as_long_as_in_the_book(settings, discount, worth):
    model = Config(**settings).make().spec.model
    assert best(model, discount) @ model.start == pytest.approx(worth, abs=1e-9)


def test_best_way_on_the_4x4_grid_is_to_the_nearer_corner():
    worth = best(Config().make().spec.model, 1).reshape(4, 4)
    row, column = np.indices((4, 4))
    assert np.allclose(worth, -np.minimum(row + column, 6 - row - column))


def test_cliff_costs_100_and_slipping_makes_its_edge_dear():
    env = Config(map="cliff").make()
    model, cells = env.spec.model, at(env.spec.layout)
    edge = int(np.flatnonzero((cells == (2, 5)).all(1))[0])
    assert model.expected_reward[edge].tolist() == [-1, -1, -100, -1]
    safe, risky = best(model, 1), best(Config(map="cliff", slip=0.2).make().spec.model, 1)
    assert risky[edge] < safe[edge] - 5


# --- layout and pictures -------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAPS)
def test_arrows_of_the_layout_point_where_the_moves_go(name):
    env = Config(map=name, wind=(0,) * len(MAPS[name][0])).make()
    model, cells, layout = env.spec.model, at(env.spec.layout), env.spec.layout
    state, action = np.divmod(model.pair, 4)
    gone = cells[model.next_state] - cells[state]
    free = (np.abs(gone).sum(1) == 1) & (model.reward > -100)
    assert free.sum() > len(cells)
    assert np.array_equal(gone[free], layout.arrows[action[free]])
    assert env.spec.action_names == ("up", "right", "down", "left")


@pytest.mark.parametrize(
    "rows", [*MAPS, ("SG",), ("S", "G"), ("S" + "." * 150 + "G",) * 3], ids=str
)
def test_picture_shows_the_agent_where_it_stands(rows):
    world = Config(map=rows, start="anywhere")
    env = world.make(render=True)
    layout, height, width = at(env.spec.layout), *env_size(world)
    shapes = set()
    for seed in range(8):
        step = env.reset(seed)
        picture = env.render()
        shapes.add(picture.shape)
        tall, wide = picture.shape[0] // height, picture.shape[1] // width
        row, column = layout[step.observation[0]]
        middle = picture[int((row + 0.5) * tall), int((column + 0.5) * wide)]
        assert np.abs(middle.astype(int) - AMBER).max() < 30
    assert len(shapes) == 1
    assert picture.shape[0] % 2 == picture.shape[1] % 2 == 0


def env_size(world: Config) -> tuple[int, int]:
    rows = MAPS[world.map] if isinstance(world.map, str) else world.map
    return len(rows), len(rows[0])


def test_picture_shows_the_last_moves():
    env = Config(map="windy").make(render=True)
    env.reset(0)
    for action in (RIGHT, RIGHT, UP):
        env.step(np.array([action]))
    moved = env.render()
    env.load_state_dict(env.state_dict())  # the same place, without a past
    assert (moved != env.render()).any()


# --- settings ------------------------------------------------------------------------------------


def test_world_is_named_after_its_map():
    assert [Config(map=name).world for name in MAPS] == [f"gridworld-{name}" for name in MAPS]
    assert Config(map=("SG",)).world == "gridworld"


def test_map_is_written_as_rows_in_a_config(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(
        'env:\n  name: gridworld\n  map:\n    - "S.#"\n    - ..G\nagent: {name: uniform}\n'
    )
    loaded: Any = config.load(str(file)).env
    assert loaded.map == ("S.#", "..G")
    assert loaded.make().spec.observation_space.n == 5
    typed: Any = config.load(str(file), ["--env.map", "cliff", "--env.slip", "0.1"]).env
    assert (typed.map, typed.slip) == ("cliff", 0.1)
    typed = config.load(str(file), ["--env.map", "SG", "..", "--env.wind", "0", "1"]).env
    assert (typed.map, typed.wind) == (("SG", ".."), (0, 1))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"map": "clif"}, "no map called 'clif'; did you mean 'cliff'"),
        ({"map": "zzz"}, "no map called 'zzz'; choose from 4x4, windy, cliff, maze"),
        ({"map": ("S?G",)}, "row 1 of the map has the letter '[?]'; the letters are"),
        ({"map": ("S.G", "..")}, "row 2 of the map is 2 letters long and another one 3"),
        ({"map": ("S.", "..", "...")}, "row 1 of the map is 2 letters long and another one 3"),
        ({"map": ("S..",)}, "no goal: mark at least one cell with G"),
        ({"map": ()}, "no goal"),
        ({"map": ("",)}, "no goal"),
        ({"map": ("##G",)}, "no place to start"),
        ({"map": ("XG",), "start": "anywhere"}, "no place to start"),
        ({"map": (".CG",)}, "a cliff C sends back to the start: mark at least one cell with S"),
        ({"map": ("S#G",)}, "no goal can be reached from the start in row 1, column 1"),
        ({"map": ("S.XG",)}, "no goal can be reached from the start in row 1, column 1"),
        ({"map": ("S.CG",)}, "no goal can be reached from the start in row 1, column 1"),
        ({"map": ("S.G", "##.", "..#")}, ""),
        ({"map": ("S.G", "##.", "..#"), "start": "anywhere"}, "from the start in row 3, column 1"),
        ({"map": ("S.", "..", ".G"), "wind": (1, 1)}, "no goal can be reached"),
        ({"map": ("S.G",), "wind": (1, 1)}, "env.wind lists 2 columns and the map has 3"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:40],
)
def test_map_that_is_none_is_a_mistake_in_one_sentence(settings, says):
    if not says:
        Config(**settings).make()
        return
    with pytest.raises(Mistake, match=says) as caught:
        Config(**settings).make()
    assert "\n" not in str(caught.value)


def test_slips_open_ways_that_the_moves_alone_do_not():
    """Against this wind no move goes down, and none is needed where slips do not help."""
    world = Config(map=("S.", ".G"), wind=(1, 1))
    with pytest.raises(Mistake, match="no goal can be reached"):
        world.make()
    dataclasses.replace(world, wind=(1, 0)).make()
