"""Maps show what the agent itself would say and do in every state."""

from __future__ import annotations

import av
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from PIL import Image

from agents.q_learning import Config as QLearning
from rlplay import config, heatmap, maps
from rlplay.core import Agent, Decision, Layout, Mistake, Spec
from rlplay.model import Model

MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # up, right, down, left


def floor(num_envs=1, model=None, **fields) -> Spec:
    """Return a map of 3 x 4 cells, of which the one at row 1, column 2 is a wall."""
    cells = np.array([(0, row, column) for row in range(3) for column in range(4)])
    cells = np.delete(cells, 6, axis=0)
    layout = Layout(**{"cells": cells, "arrows": MOVES, "marks": {0: "S", 10: "G"}} | fields)
    names = tuple(["up", "right", "down", "left"])
    return Spec(num_envs, Discrete(11), Discrete(4), action_names=names, model=model, layout=layout)


class Told(Agent):
    """Says what it is told to, as notes [S, ...], and remembers what it was asked."""

    def __init__(self, action, **notes) -> None:
        self.action, self.notes = np.asarray(action), notes
        self.asked, self.masks = [], []

    def act(self, step, explore=True):
        assert not explore
        self.asked.append(step.observation)
        self.masks.append(step.action_mask)
        notes = {name: np.asarray(note)[step.observation] for name, note in self.notes.items()}
        return Decision(self.action[step.observation], notes)


def learners(num_envs: int, spec: Spec) -> tuple[Agent, np.ndarray]:
    """Return Q-learning with random tables, and these [N, S, A]."""
    agent = QLearning().make(spec, seed=0)
    tables = np.random.default_rng(1).normal(size=(num_envs, 11, 4))
    state = dict(agent.state_dict())
    state["weights"] = {**state["weights"], "q": tables}
    agent.load_state_dict(state)
    return agent, tables


# What is known.


@pytest.mark.parametrize("num_learners", [1, 3])
@pytest.mark.parametrize("rows", [100_000, 7])
def test_values_and_policy_are_means_over_the_learners_tables(monkeypatch, num_learners, rows):
    monkeypatch.setattr(maps, "ROWS_ASKED", rows)
    spec = floor(num_learners)
    agent, tables = learners(num_learners, spec)
    values, policy = maps.known(agent, spec)
    np.testing.assert_allclose(values, tables.max(2).mean(0))
    np.testing.assert_allclose(policy, np.eye(4)[tables.argmax(2)].mean(0))
    if num_learners > 1:  # the negative control: one learner alone says something else
        assert not np.allclose(values, tables[0].max(1))
    single, _ = maps.known(agent, floor(1))  # as evaluation sees the world
    np.testing.assert_allclose(single, values)


def test_only_legal_actions_count_and_terminal_states_are_worth_nothing():
    rows = [(s, a, 10, 1.0, 0.0, True) for s in range(10) for a in (0, 2)]
    model = Model.of(11, 4, rows, np.eye(11)[0])
    q_values = np.random.default_rng(0).normal(size=(11, 4))
    q_values[:, 1] += 10  # best, and illegal
    agent = Told(np.where(q_values[:, 0] > q_values[:, 2], 0, 2), q_values=q_values)
    values, policy = maps.known(agent, floor(model=model))
    np.testing.assert_allclose(values[:10], q_values[:10, [0, 2]].max(1))
    assert values[10] == 0
    assert not policy[10].any()
    assert policy[:10].argmax(1).tolist() == agent.action[:10].tolist()
    assert 10 not in np.concatenate(agent.asked)
    assert np.concatenate(agent.masks).any(1).all()


def test_value_and_policy_are_taken_from_an_agent_that_tells_them():
    value, policy = np.arange(11.0), np.tile([0.1, 0.2, 0.3, 0.4], (11, 1))
    agent = Told(np.zeros(11, int), value=value, policy=policy, q_values=np.zeros((11, 4)))
    found = maps.known(agent, floor())
    np.testing.assert_allclose(found[0], value)
    np.testing.assert_allclose(found[1], policy)


def test_an_agent_that_tells_no_values_still_has_a_policy():
    values, policy = maps.known(Told(np.arange(11) % 4), floor())
    assert np.isnan(values).all()
    assert policy.argmax(1).tolist() == (np.arange(11) % 4).tolist()
    assert maps.picture(values, policy, floor()).std() > 0


def test_a_world_without_a_layout_has_no_map():
    spec = Spec(1, Box(0, 1, (3,)), Discrete(4))
    with pytest.raises(Mistake, match="no map of its states"):
        maps.known(Told([0]), spec)
    with pytest.raises(Mistake, match="no map of its states"):
        maps.picture(np.zeros(3), np.zeros((3, 4)), spec)


# What is seen.


def policy_of(*actions: int) -> np.ndarray:
    return np.eye(4)[list(actions)]


def cell(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    """Return the pixels of a cell of the map of 3 x 4."""
    left, top = (
        heatmap.LEFT + column * heatmap.LARGEST,
        heatmap.TOP + heatmap.HEADING + row * heatmap.LARGEST,
    )
    return picture[top : top + heatmap.LARGEST, left : left + heatmap.LARGEST]


def inked(cell: np.ndarray) -> np.ndarray:
    """Return which pixels of a cell are dark."""
    return cell.sum(2, dtype=int) < 450


def test_an_arrow_stands_where_the_policy_says_and_nowhere_else():
    values, spec = np.linspace(0, 1, 11), floor()
    before = maps.picture(values, policy_of(*[0] * 11), spec)
    after = maps.picture(values, policy_of(0, 0, 0, 0, 0, 1, *[0] * 5), spec)
    assert (cell(before, 1, 1) != cell(after, 1, 1)).any()
    rows, columns, _ = np.nonzero(before != after)
    left, top = heatmap.LEFT + heatmap.LARGEST, heatmap.TOP + heatmap.HEADING + heatmap.LARGEST
    assert left <= columns.min() <= columns.max() < left + heatmap.LARGEST
    assert top <= rows.min() <= rows.max() < top + heatmap.LARGEST
    np.testing.assert_array_equal(maps.picture(values, policy_of(*[0] * 11), spec), before)


@pytest.mark.parametrize(("action", "row", "column"), [(0, 0, 1), (1, 1, 2), (2, 2, 1), (3, 1, 0)])
def test_arrows_point_where_their_action_goes(action, row, column):
    """The head, which is broad, lies in the third of the cell that the action goes to."""
    policy = np.zeros((11, 4))
    policy[4] = np.eye(4)[action]
    dark = inked(cell(maps.picture(np.full(11, np.nan), policy, floor()), 1, 0))
    thirds = dark.reshape(3, 24, 3, 24).sum((1, 3))
    thirds[1, 1] = 0
    assert np.unravel_index(thirds.argmax(), (3, 3)) == (row, column)


def test_a_more_probable_action_has_a_longer_arrow():
    sizes = []
    for share in (0.2, 0.6):
        policy = np.zeros((11, 4))
        policy[4] = [1 - share / 2, share / 2, 0, 0]
        dark = inked(cell(maps.picture(np.full(11, np.nan), policy, floor()), 1, 0))
        sizes.append(dark[:, 42:].sum())  # to the right of the arrow that goes up
    assert 0 < sizes[0] < sizes[1]


def test_walls_are_grey_and_marks_are_written():
    values, policy = np.linspace(0, 1, 11), policy_of(*[0] * 11)
    policy[10] = 0  # terminal
    picture = maps.picture(values, policy, floor())
    assert (cell(picture, 1, 2)[2:-2, 2:-2] == 0xC9).all()
    plain = maps.picture(values, policy, floor(marks={}))
    for row, column in [(0, 0), (2, 3)]:
        assert (cell(plain, row, column) != cell(picture, row, column)).any()
        cell(picture, row, column)[:] = cell(plain, row, column)[:] = 0
    np.testing.assert_array_equal(picture, plain)


def test_colours_diverge_where_values_cross_zero():
    for values, low, high in [([-5, 0, 10], -10, 10), ([1, 2, 3], 1, 3), ([-3, -2, 0], -3, 0)]:
        colours, (name, *ends) = heatmap.shades(np.array(values, float))
        assert ends == [low, high]
        assert name == ("RdBu" if low < 0 < high else "viridis")
    colours, _ = heatmap.shades(np.array([-1.0, 0.0, 1.0]))
    assert colours[0, 0] > colours[0, 2]  # red
    assert colours[2, 2] > colours[2, 0]  # blue
    assert np.ptp(colours[1, :3]) < 0.02


def test_without_arrows_actions_are_a_second_map():
    values, spec = np.linspace(0, 1, 11), floor(arrows=None)
    before = maps.picture(values, policy_of(*[0] * 11), spec)
    after = maps.picture(values, policy_of(0, 0, 0, 0, 0, 1, *[0] * 5), spec)
    rows, columns, _ = np.nonzero(before != after)
    left, top = heatmap.LEFT + heatmap.LARGEST, heatmap.TOP + heatmap.HEADING + heatmap.LARGEST
    assert left <= columns.min() <= columns.max() <= left + heatmap.LARGEST  # with its edge
    assert top <= rows.min() <= rows.max() <= top + heatmap.LARGEST
    wide = heatmap.LEFT + 4 * heatmap.LARGEST + heatmap.GAP  # where the map of values begins
    other = maps.picture(values[::-1], policy_of(*[0] * 11), spec)
    assert np.nonzero(before != other)[1].min() >= wide


def test_states_in_a_row_are_drawn_as_curves():
    cells = np.arange(9)[:, None] * [0, 0, 1]
    layout = Layout(cells, axes=("", "capital"))
    spec = Spec(1, Discrete(9), Discrete(4), layout=layout)
    values, policy = np.linspace(0, 1, 9), np.eye(4)[np.arange(9) % 4]
    picture = maps.picture(values, policy, spec)
    middle = len(picture) // 2 + 10
    assert np.nonzero(picture != maps.picture(values**2, policy, spec))[0].max() < middle
    assert np.nonzero(picture != maps.picture(values, policy[::-1], spec))[0].min() > middle
    single = Spec(1, Discrete(9), Discrete(1), layout=layout)
    assert len(maps.picture(values, policy[:, :1] + 1, single)) == len(picture) // 2


WORLDS = {
    "gridworld": {},
    "random_walk": {},
    "gamblers_problem": {},
    "jacks_car_rental": {},
    "FrozenLake-v1": {"name": "gymnasium", "id": "FrozenLake-v1"},
    "Taxi-v4": {"name": "gymnasium", "id": "Taxi-v4"},
    "Blackjack-v1": {"name": "gymnasium", "id": "Blackjack-v1"},
}


@pytest.mark.parametrize("world", WORLDS)
def test_pictures_of_a_world_are_all_of_one_even_size(world):
    settings = {"name": world} | WORLDS[world]
    spec = config.plugin("envs", settings["name"]).Config(**settings).make().spec
    generator = np.random.default_rng(0)
    num_states = len(spec.layout.cells)
    shapes = set()
    for scale in (0, 1, 1e6):
        values = scale * generator.normal(size=num_states)
        policy = np.eye(spec.num_actions)[generator.integers(spec.num_actions, size=num_states)]
        picture = maps.picture(values, policy, spec, f"{scale:,} agent steps")
        assert picture.dtype == np.uint8
        shapes.add(picture.shape)
    ((height, width, _),) = shapes
    assert height % 2 == width % 2 == 0
    assert height <= heatmap.HEIGHT
    assert width <= heatmap.WIDTH


@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (40, 60), (100, 3), (1, 300), (300, 1)])
@pytest.mark.parametrize("num_maps", [1, 2, 20])
def test_maps_of_every_size_fit_and_do_not_overlap(shape, num_maps):
    grid = heatmap.Grid.of(num_maps, shape, 1)
    corners = np.array([grid.corner(i) for i in range(num_maps)])
    far = corners + np.array(shape[::-1]) * grid.cell
    if grid.cell > heatmap.SMALLEST:
        assert grid.size[0] <= heatmap.WIDTH
        assert grid.size[1] <= heatmap.HEIGHT
    assert (far + np.array([heatmap.RIGHT, heatmap.BOTTOM]) <= np.array(grid.size) + 1).all()
    for i in range(num_maps):
        apart = (corners >= far[i] + 8) | (far + 8 <= corners[i])
        assert apart.any(1).sum() == num_maps - 1


# Files.


def test_a_saved_picture_is_the_picture(tmp_path):
    picture = np.random.default_rng(0).integers(256, size=(20, 30, 3)).astype(np.uint8)
    png = maps.save(picture, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == png
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "map.png")), picture)


def test_a_film_shows_the_pictures_in_order_and_the_last_for_longer(tmp_path):
    paths = []
    for i, level in enumerate((20, 120, 220)):
        paths.append(tmp_path / f"{i}.png")
        maps.save(np.full((64, 96, 3), level, np.uint8), paths[-1])
    maps.film(paths, tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        rate = film.streams.video[0].average_rate
    levels = [round(float(frame.mean()) / 100 - 0.2) for frame in frames]
    assert levels == [0] * 3 + [1] * 3 + [2] * 23
    assert float(3 / rate) == pytest.approx(0.3)
    assert frames[0].shape == (64, 96, 3)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_film_of_pictures_that_do_not_fit_leaves_no_file(tmp_path):
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for path, height in zip(paths, (64, 66), strict=True):
        maps.save(np.zeros((height, 96, 3), np.uint8), path)
    with pytest.raises(ValueError, match="the pictures before it"):
        maps.film(paths, tmp_path / "film.mp4")
    with pytest.raises(ValueError, match="needs a picture"):
        maps.film([], tmp_path / "film.mp4")
    assert sorted(tmp_path.iterdir()) == paths
