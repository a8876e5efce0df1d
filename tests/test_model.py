"""Laws of `rlplay/model.py`, and the plainest way to solve one, against which others are tested."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from rlplay.core import Array, Mistake
from rlplay.model import Model

# Two rooms and a door: action 0 stays, action 1 goes on, and out of room 1 into the open, state 2.
ROWS = [
    (0, 0, 0, 1.0, -1.0, False),
    (0, 1, 0, 0.25, -1.0, False),
    (0, 1, 1, 0.75, -1.0, False),
    (1, 1, 2, 0.5, 10.0, True),
    (1, 1, 2, 0.25, 4.0, True),
    (1, 1, 0, 0.25, 0.0, False),
]
START = np.array([0.5, 0.5, 0.0])


def values(model: Model, policy: Array, discount: float) -> Array:
    """Return what following `policy` [S, A] is worth, [S], by one dense linear solve."""
    chain = np.einsum("sa,sat->st", policy, model.dense())
    reward = (policy * model.expected_reward).sum(1)
    return np.linalg.solve(np.eye(model.num_states) - discount * chain, reward)


def best(model: Model, discount: float, error: float = 1e-11) -> Array:
    """Return what acting as well as possible is worth, [S], by plain sweeps over dense tables."""
    dense, worth = model.dense(), np.zeros(model.num_states)
    for _ in range(100_000):
        q = np.where(model.action_mask, model.expected_reward + discount * dense @ worth, -np.inf)
        better = np.where(model.terminal, 0, q.max(1))
        if np.abs(better - worth).max() < error:
            return better
        worth = better
    raise AssertionError("no end of sweeps")


def uniform(model: Model) -> Array:
    """Return the policy that takes every legal action equally often, [S, A]."""
    return model.action_mask / np.maximum(model.action_mask.sum(1, keepdims=True), 1)


def random_rows(seed: int, num_states: int = 7, num_actions: int = 3) -> list[Any]:
    random = np.random.default_rng(seed)
    rows = []
    for s, a in np.ndindex(num_states - 1, num_actions):
        for share in random.dirichlet(np.ones(4)):
            following, reward = random.integers(num_states), random.integers(-2, 3)
            rows.append((s, a, int(following), share, float(reward), bool(random.random() < 0.2)))
    return rows


def fields(model: Model) -> list[bytes]:
    return [np.asarray(getattr(model, f.name)).tobytes() for f in dataclasses.fields(model)]


def test_tables_say_what_the_rows_say():
    model = Model.of(3, 2, ROWS, START)
    assert model.offsets.tolist() == [0, 1, 3, 3, 6, 6, 6]
    assert model.next_state.tolist() == [0, 0, 1, 0, 2, 2]
    assert model.probability.tolist() == [1, 0.25, 0.75, 0.25, 0.25, 0.5]
    assert model.reward.tolist() == [-1, -1, -1, 0, 4, 10]
    assert model.terminated.tolist() == [False] * 4 + [True] * 2
    assert model.action_mask.tolist() == [[True, True], [False, True], [False, False]]
    assert model.terminal.tolist() == [False, False, True]
    assert model.pair.tolist() == [0, 1, 1, 3, 3, 3]
    assert model.expected_reward.tolist() == [[-1, -1], [0, 6], [0, 0]]
    assert model.continuing.tolist() == [1, 0.25, 0.75, 0.25, 0, 0]


def test_order_of_rows_does_not_matter_nor_does_their_kind():
    rows = random_rows(0)
    start = np.full(7, 1 / 7)
    model = Model.of(7, 3, rows, start)
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    for other in (Model.of(7, 3, shuffled, start), Model.of(7, 3, np.array(rows, float), start)):
        assert all(np.allclose(a, b) for a, b in zip(tables(model), tables(other), strict=True))
    # Negative control: another row is another model.
    changed = [(*rows[0][:4], rows[0][4] + 1, rows[0][5]), *rows[1:]]
    assert fields(Model.of(7, 3, changed, start)) != fields(model)


def tables(model: Model) -> list[Array]:
    return [model.offsets, model.next_state, model.probability, model.reward, model.terminated]


def test_equal_rows_are_merged_even_when_others_stand_between_them():
    rows = [(0, 0, 1, 0.3, 1.0, False), (0, 0, 1, 0.5, 2.0, False), (0, 0, 1, 0.2, 1.0, False)]
    model = Model.of(2, 1, [*rows, (0, 0, 0, 0.0, 9.0, False)], np.array([1.0, 0.0]))
    assert model.reward.tolist() == [1, 2]
    assert model.probability.tolist() == [0.5, 0.5]


def test_going_on_and_ending_are_kept_apart():
    rows = [(0, 0, 1, 0.5, 1.0, False), (0, 0, 1, 0.5, 1.0, True), (1, 0, 1, 1.0, 1.0, False)]
    model = Model.of(2, 1, rows, np.array([1.0, 0.0]))
    assert len(model.reward) == 3
    assert values(model, np.ones((2, 1)), 0.5).tolist() == [1.5, 2]


@pytest.mark.parametrize("seed", range(3))
def test_dense_tables_are_the_sum_of_the_rows(seed):
    rows = random_rows(seed)
    model = Model.of(7, 3, rows, np.full(7, 1 / 7))
    dense, reward = np.zeros((7, 3, 7)), np.zeros((7, 3))
    for s, a, following, probability, earned, terminated in rows:
        reward[s, a] += probability * earned
        if not terminated:
            dense[s, a, following] += probability
    assert np.allclose(model.dense(), dense, atol=1e-14)
    assert np.allclose(model.expected_reward, reward, atol=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_exact_values_satisfy_their_equations(seed):
    """Of the two solvers above, which other tests rely on."""
    model = Model.of(7, 3, random_rows(seed), np.full(7, 1 / 7))
    worth, policy = best(model, 0.9), np.zeros((7, 3))
    q = model.expected_reward + 0.9 * model.dense() @ worth
    policy[np.arange(6), q[:6].argmax(1)] = 1
    assert np.allclose(values(model, policy, 0.9), worth, atol=1e-9)
    assert (values(model, uniform(model), 0.9) <= worth + 1e-9).all()
    assert (values(model, uniform(model), 0.9) < worth - 0.01).any()


def test_model_without_transitions_is_all_terminal():
    model = Model.of(2, 2, [], np.array([1.0, 0.0]))
    assert model.terminal.all()
    assert model.expected_reward.tolist() == [[0, 0], [0, 0]]


GOOD = Model.of(3, 2, ROWS, START)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"probability": GOOD.probability * 0.9}, r"action 0 in state 0 sum to 0\.9, not 1"),
        ({"probability": np.array([1, 0.25, 0.75, 0.25, 0.3, 0.5])}, "action 1 in state 1 sum to"),
        ({"probability": np.array([1, -0.25, 1.25, 0.25, 0.25, 0.5])}, "must not be negative"),
        ({"probability": np.array([np.nan, 0.25, 0.75, 0.25, 0.25, 0.5])}, "must not be negative"),
        ({"probability": np.ones(2)}, "probability must have 6 rows"),
        ({"reward": np.full(6, np.inf)}, "rewards must be finite"),
        ({"reward": np.zeros(7)}, "reward must have 6 rows"),
        ({"terminated": np.zeros(5, bool)}, "terminated must have 6 rows"),
        ({"next_state": GOOD.next_state + 1}, r"next states must be in 0\.\.2"),
        ({"next_state": GOOD.next_state - 1}, r"next states must be in 0\.\.2"),
        ({"offsets": GOOD.offsets[:-1]}, "offsets must be 7 numbers from 0 to 6"),
        ({"offsets": GOOD.offsets + 1}, "offsets must be 7 numbers from 0 to 6"),
        ({"offsets": np.array([0, 3, 1, 3, 6, 6, 6])}, "offsets must not fall"),
        ({"start": np.array([0.5, 0.4, 0.0])}, r"must sum to 1, not to 0\.9"),
        ({"start": np.array([1.5, -0.5, 0.0])}, "none negative"),
        ({"start": np.array([0.5, 0.5])}, "one starting probability per state"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:25],
)
def test_tables_that_are_no_decision_process_are_a_mistake(changes, says):
    with pytest.raises(Mistake, match=says) as caught:
        dataclasses.replace(GOOD, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [(3, 0), (0, 2), (-1, 0), (0, -1)])
def test_row_outside_of_the_model_is_a_mistake(place):
    state, action = place
    with pytest.raises(Mistake, match=f"has none for action {action} in state {state}"):
        Model.of(3, 2, [*ROWS, (*place, 0, 1.0, 0.0, False)], START)


def test_negative_probability_is_not_hidden_by_merging_equal_rows():
    rows = [(0, 0, 0, 1.5, 0.0, False), (0, 0, 0, -0.5, 0.0, False)]
    with pytest.raises(Mistake, match="must not be negative"):
        Model.of(1, 1, rows, np.ones(1))
