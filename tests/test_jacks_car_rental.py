"""Laws of `envs/jacks_car_rental.py`: tables against brute force and play, the book's policy."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from test_model import best

from envs.jacks_car_rental import Config, JacksCarRental
from rlplay.core import Array
from rlplay.model import Model

PLACES = [(10, 10, 0), (0, 0, 0), (20, 20, 0), (20, 20, -5), (20, 0, 5), (0, 20, -5), (3, 8, 2)]


@pytest.fixture(scope="module", params=[False, True], ids=["book", "modified"])
def env(request) -> JacksCarRental:
    return Config(modified=request.param).make()


def rows(model: Model, first: int, second: int, moved: int) -> slice:
    pair = (first * 21 + second) * 11 + moved + 5
    return slice(model.offsets[pair], model.offsets[pair + 1])


def by_hand(first: int, second: int, moved: int, modified: bool) -> tuple[Array, float]:
    """Return how likely each evening is, [441], and what is earned on average, going through every
    number of customers and returns up to 40."""

    def poisson(mean: float, n: int) -> float:
        return math.exp(-mean) * mean**n / math.factorial(n)

    morning = min(first - moved, 20), min(second + moved, 20)
    earned = -2.0 * abs(moved)
    if modified:
        earned += 2 * (moved > 0) - 4 * (morning[0] > 10) - 4 * (morning[1] > 10)
    evening = []
    for cars, requests, returns in zip(morning, (3, 4), (3, 2), strict=True):
        likely = np.zeros(21)
        for asked, back in product(range(41), repeat=2):
            chance = poisson(requests, asked) * poisson(returns, back)
            rented = min(asked, cars)
            likely[min(cars - rented + back, 20)] += chance
            earned += 10 * rented * chance
        evening.append(likely)
    return np.outer(*evening).ravel(), earned


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_tables_are_what_counting_every_day_gives(env, place):
    model = env.spec.model
    likely, earned = by_hand(*place, env.modified)
    part = rows(model, *place)
    assert model.next_state[part].tolist() == list(range(441))
    assert np.allclose(model.probability[part], likely, atol=1e-12)
    state = place[0] * 21 + place[1]
    assert model.expected_reward[state, place[2] + 5] == pytest.approx(earned, abs=1e-9)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_days_come_as_often_as_the_tables_say_and_earn_as_much(env, place):
    first, second, moved = place
    n, model = 200_000, env.spec.model
    env.reset(0)
    state, action = np.full(n, first * 21 + second), np.full(n, moved + 5)
    evening, reward, over = env.follow(state, action, np.zeros(n, bool))
    assert not over.any()
    part = rows(model, *place)
    expected = n * model.probability[part]
    counts = np.bincount(evening, minlength=441)
    often = expected > 10
    z = (counts - expected)[often] / np.sqrt(expected[often])
    assert often.sum() > 20
    assert np.abs(z).max() < 5
    assert (z**2).mean() == pytest.approx(1, abs=6 * np.sqrt(2 / often.sum()))
    assert counts[~often].sum() < 2 * expected[~often].sum() + 30
    # What is earned, given the evening, too: the tables hold its mean.
    error = 5 * reward.std() / np.sqrt(counts[often])
    mean = np.bincount(evening, reward, 441)[often] / counts[often]
    assert (np.abs(mean - model.reward[part][often]) < error + 1e-9).all()


def test_probabilities_sum_to_one_exactly(env):
    model = env.spec.model
    sums = np.add.reduceat(model.probability, model.offsets[:-1][np.diff(model.offsets) > 0])
    assert np.abs(sums - 1).max() < 1e-14
    assert (model.probability > 0).all()
    assert not model.terminated.any()
    assert not model.terminal.any()


def test_only_cars_that_are_there_can_be_moved(env):
    mask = env.spec.model.action_mask.reshape(21, 21, 11)
    for first, second, a in np.ndindex(21, 21, 11):
        moved = a - 5
        assert mask[first, second, a] == (moved <= first and -moved <= second)
    assert env.spec.action_names[::5] == ("-5", "0", "+5")


def test_policy_of_figure_4_2_is_found_in_four_improvements():
    model = Config().make().spec.model
    states, dense = np.arange(441), model.dense()
    policy, improvements = np.full(441, 5), 0
    while True:
        chain = np.eye(441) - 0.9 * dense[states, policy]
        worth = np.linalg.solve(chain, model.expected_reward[states, policy])
        q = np.where(model.action_mask, model.expected_reward + 0.9 * dense @ worth, -np.inf)
        better = q.max(1) > q[states, policy] + 1e-9
        if not better.any():
            break
        policy, improvements = np.where(better, q.argmax(1), policy), improvements + 1
    moves = (policy - 5).reshape(21, 21)
    assert improvements == 4
    assert (moves.min(), moves.max()) == (-4, 5)
    assert moves[0].tolist() == [0] * 8 + [-1] * 2 + [-2] * 3 + [-3] * 5 + [-4] * 3
    assert (np.diff(moves, axis=0) >= 0).all()  # the more cars here, the more go there
    assert np.allclose(worth, best(model, 0.9), atol=1e-8)
    # Negative control: exercise 4.7 moves one car more readily, and keeps lots small.
    other = Config(modified=True).make().spec.model
    q = np.where(
        other.action_mask, other.expected_reward + 0.9 * other.dense() @ best(other, 0.9), -np.inf
    )
    assert (q.argmax(1) != policy).sum() > 100


def test_rentals_begin_with_ten_cars_each_and_end_by_the_time_limit_only():
    env = Config(num_envs=50, max_steps=7).make()
    step = env.reset(0)
    assert (step.observation == 10 * 21 + 10).all()
    for day in range(1, 8):
        step = env.step(np.full(50, 5))
        assert not step.terminated.any()
        assert step.truncated.all() == (day == 7)
    assert (env.step(np.full(50, 10)).observation == 220).all()


def test_layout_is_figure_4_2s():
    layout = Config().make().spec.layout
    assert layout.cells[0].tolist() == [0, 20, 0]  # no cars: below left
    assert layout.cells[440].tolist() == [0, 0, 20]
    assert layout.cells[20 * 21 + 3].tolist() == [0, 0, 3]
    assert layout.labels[0][0] == "20"
    assert layout.labels[1][20] == "20"


def test_picture_tells_the_day():
    env = Config(max_steps=3).make(render=True)
    env.reset(0)
    pictures = [env.render()]
    for _ in range(5):
        env.step(np.array([6]))
        pictures.append(env.render())
    blank = [(picture[235:] == pictures[0][235:]).all() for picture in pictures]
    assert blank == [True, False, False, False, True, False]  # a first evening has no day before
