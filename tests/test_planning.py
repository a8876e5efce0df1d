"""Planning against exact answers: linear solves, plain loops from the definition, known values."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from agents import policy_evaluation, policy_iteration, value_iteration
from envs import gridworld, random_walk
from envs import gymnasium as worlds
from rlplay import checkpoint, config, maps, planning, sweeps
from rlplay.core import Mistake, Spec, Step
from rlplay.model import Model
from rlplay.planning import PolicyIteration, ValueIteration, policy_of, policy_values
from rlplay.play import collect, play
from rlplay.sweeps import Tables

ORDERS = ("synchronous", "gauss_seidel", "prioritized")
REPRESENTATIONS: tuple[sweeps.Representation, ...] = ("sparse", "dense")
SOLVERS: dict[str, Any] = {
    **{order: lambda t, d, o=order: ValueIteration(t, d, o) for order in ORDERS},
    "policy iteration": PolicyIteration,
    "modified": lambda t, d: PolicyIteration(t, d, evaluation_sweeps=5),
}


def random_model(
    seed: int = 0, num_states: int = 30, num_actions: int = 3, ends: float = 0.2, spare: float = 0.3
) -> Model:
    """Return a model with endings, illegal actions and, where anything ends, a terminal state."""
    random = np.random.default_rng(seed)
    rows = []
    for s, a in itertools.product(range(num_states), range(num_actions)):
        if (a and random.random() < spare) or (ends and s == num_states // 2):
            continue
        chances = random.dirichlet(np.ones(4))
        for s2, p in zip(random.integers(num_states, size=4), chances, strict=True):
            rows.append((s, a, int(s2), p, random.normal(), bool(random.random() < ends)))
    return Model.of(num_states, num_actions, rows, np.full(num_states, 1 / num_states))


def plain_action_values(model: Model, values: Any, discount: float) -> list[list[float]]:
    """The definition, in plain Python: a second implementation."""
    q_values = [[-np.inf] * model.num_actions for _ in range(model.num_states)]
    for s, a in itertools.product(range(model.num_states), range(model.num_actions)):
        pair = s * model.num_actions + a
        for k in range(model.offsets[pair], model.offsets[pair + 1]):
            going_on = 0.0 if model.terminated[k] else discount * values[model.next_state[k]]
            before = q_values[s][a] if k > model.offsets[pair] else 0.0
            q_values[s][a] = before + model.probability[k] * (model.reward[k] + going_on)
    return q_values


def exact(model: Model, policy: Any, discount: float) -> Any:
    """Return the values of a policy [S, A] by numpy's dense solver, from the dense matrix."""
    moves = np.einsum("sa,sat->st", policy, model.dense())
    reward = (policy * model.expected_reward).sum(1)
    return np.linalg.solve(np.eye(model.num_states) - discount * moves, reward)


def best(model: Model, discount: float) -> Any:
    """Return the optimal values by Howard's iteration in its plainest form."""
    policy = model.action_mask / np.maximum(model.action_mask.sum(1, keepdims=True), 1)
    for _ in range(100):
        values = exact(model, policy, discount)
        moves = np.einsum("sat,t->sa", model.dense(), values)
        q_values = np.where(model.action_mask, model.expected_reward + discount * moves, -np.inf)
        if (q_values.max(1) <= values + 1e-11)[~model.terminal].all():
            return values
        policy = np.eye(model.num_actions)[q_values.argmax(1)] * model.action_mask
    raise AssertionError("no policy is best")


def corridor(length: int, end: float = 1.0) -> Model:
    """Return a corridor: one more step to the right, -1 each; the last one ends with `end`."""
    rows = [(s, 0, s + 1, 1.0, -1.0, False) for s in range(length - 1)]
    rows += [(s, 1, s, 1.0, -1.0, False) for s in range(length - 1)]
    rows += [(length - 1, 0, length - 1, end, -1.0, True)]
    rows += [(length - 1, 0, length - 1, 1 - end, -1.0, False)]
    return Model.of(length, 2, rows, np.eye(length)[0])


@pytest.mark.parametrize("discount", [0.0, 0.9, 0.99])
@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_equals_the_exact_solution(name, representation, discount):
    for seed, ends in itertools.product(range(3), (0.0, 0.2)):
        model = random_model(seed, ends=ends)
        plan = SOLVERS[name](Tables.of(model, representation), discount).solve(1e-9)
        assert np.abs(plan.values - best(model, discount)).max() < 1e-8
        own = exact(model, np.eye(3)[plan.policy] * model.action_mask, discount)
        assert np.abs(own - best(model, discount)).max() < 1e-7


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_equals_the_exact_solution_without_discount(name, representation):
    for seed in range(3):
        model = random_model(seed, ends=0.3)
        plan = SOLVERS[name](Tables.of(model, representation), 1.0).solve(1e-9)
        assert np.abs(plan.values - best(model, 1.0)).max() < 1e-8


GYMNASIUM = ("FrozenLake-v1", "Taxi-v4", "CliffWalking-v1")
WORLDS = (*config.names("envs"), *GYMNASIUM)


@cache
def model_of(world: str) -> Model:
    """Return the model of an env by its default settings; skip the test where it has none."""
    if world in GYMNASIUM:
        return worlds.Config(id=world).make().spec.model
    model = config.plugin("envs", world).Config().make().spec.model
    if not isinstance(model, Model):
        pytest.skip(f"{world} has no transition tables")
    return model


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("world", WORLDS)
def test_every_world_is_solved_as_by_the_exact_solution(world, representation):
    model = model_of(world)
    tables = Tables.of(model, representation)
    for discount in (0.9,) if world == "jacks_car_rental" else (0.9, 1.0):
        truth = best(model, discount)
        for name, solver in SOLVERS.items():
            plan = solver(tables, discount).solve(3e-9)
            assert np.abs(plan.values - truth).max() < 1e-8, name
            assert plan.error_bound <= 3e-9


@pytest.mark.parametrize("world", WORLDS)
def test_policy_values_equal_the_exact_solution_in_every_world(world):
    model = model_of(world)
    uniform = planning.equal_chances(model.action_mask)
    for discount in (0.9,) if world == "jacks_car_rental" else (0.9, 1.0):
        truth = exact(model, uniform, discount)
        scale = max(1.0, np.abs(truth).max())
        assert np.abs(policy_values(model, uniform, discount) - truth).max() < 1e-9 * scale
        for representation in REPRESENTATIONS if np.abs(truth).max() < 1000 else ():
            chain = Tables.of(model, representation).under(uniform)
            plan = ValueIteration(chain, discount).solve(3e-9)
            assert np.abs(plan.values - truth).max() < 1e-8


def test_action_values_equal_the_definition():
    for seed in range(3):
        model, values = random_model(seed), np.random.default_rng(seed).normal(size=30)
        plain = np.array(plain_action_values(model, values, 0.9))
        for representation in REPRESENTATIONS:
            q_values = Tables.of(model, representation).action_values(values, 0.9)
            assert np.array_equal(np.isfinite(q_values), model.action_mask)
            assert np.allclose(q_values, plain, rtol=0, atol=1e-12)


def test_a_sweep_equals_the_definition():
    model = random_model(5)
    for representation in REPRESENTATIONS:
        solver = ValueIteration(Tables.of(model, representation), 0.9)
        values = np.zeros(30)
        for _ in range(5):
            solver.sweep()
            plain = [max(row) for row in plain_action_values(model, values, 0.9)]
            values = np.where(model.terminal, 0, plain)
            assert np.allclose(solver.values, values, rtol=0, atol=1e-12)


def test_gauss_seidel_uses_each_new_value_at_once():
    model = random_model(5)
    solver, values = ValueIteration(Tables.of(model), 0.9, "gauss_seidel"), np.zeros(30)
    solver.sweep()
    for s in np.flatnonzero(~model.terminal):
        values[s] = max(plain_action_values(model, values, 0.9)[s])
    assert np.allclose(solver.values, values, rtol=0, atol=1e-12)


@given(
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.3]),
    st.floats(0, 0.97),
)
@hypothesis_settings(max_examples=40, deadline=None, derandomize=True)
def test_solvers_and_representations_agree(seed, num_states, num_actions, ends, discount):
    model = random_model(seed, num_states, num_actions, ends)
    plans = [
        solver(Tables.of(model, representation), discount).solve(1e-9)
        for solver in SOLVERS.values()
        for representation in REPRESENTATIONS
    ]
    for plan in plans[1:]:
        assert np.abs(plan.values - plans[0].values).max() <= 2e-9


@pytest.mark.parametrize("ends", [0.0, 0.1])
@pytest.mark.parametrize("name", SOLVERS)
def test_true_error_is_never_above_the_bound(name, ends):
    slack = []
    for seed in range(4):
        model = random_model(seed, ends=ends)
        truth, solver = best(model, 0.95), SOLVERS[name](Tables.of(model), 0.95)
        for _ in range(60):
            solver.sweep()
            error = np.abs(solver.values - truth).max()
            assert error <= solver.error_bound + 1e-11  # what the truth itself may be off
            if error > 1e-9:
                slack.append(error / solver.error_bound)
    assert max(slack) > 0.15  # and it is no idle bound


def test_no_smaller_bound_would_hold():
    """Two states to stay in, worth 1 a step and nothing: the bound is the error exactly."""
    rows = [(0, 0, 0, 1.0, 1.0, False), (1, 0, 1, 1.0, 0.0, False)]
    solver = ValueIteration(Tables.of(Model.of(2, 1, rows, np.array([0.5, 0.5]))), 0.9)
    for _ in range(20):
        solver.sweep()
        error = np.abs(solver.values - [10, 0]).max()
        assert error <= solver.error_bound <= error * (1 + 1e-6)


def test_values_that_are_wrong_are_not_certified():
    model = random_model(1, ends=0.0)
    truth, solver = best(model, 0.95), ValueIteration(Tables.of(model), 0.95)
    solver.solve(1e-9)
    for size in (1e-6, 1.0):
        solver.values = truth + size * (np.arange(30) == 7)
        solver.sweep()
        assert solver.error_bound > 1e-8
        assert np.abs(solver.values - truth).max() <= solver.error_bound
    # A constant is no error where no episode ends: a sweep sees it and takes it away.
    solver.values = truth + 100
    solver.sweep()
    assert np.abs(solver.values - truth).max() <= solver.error_bound < 1e-5


def test_span_certifies_in_tens_of_sweeps_what_the_largest_change_does_not():
    model = random_model(0, num_states=500, num_actions=4, ends=0.0, spare=0.0)
    plan = ValueIteration(Tables.of(model), 0.99).solve(1e-6)
    assert plan.sweeps < 60
    values, sweeps_by_norm = np.zeros(500), 0
    change, tables = np.inf, Tables.of(model)
    while change * 0.99 / 0.01 > 1e-6:
        new = tables.sweep(values, 0.99)[0]
        change, values, sweeps_by_norm = np.abs(new - values).max(), new, sweeps_by_norm + 1
    assert sweeps_by_norm > 1000


def test_small_changes_are_no_certificate_without_discount():
    """An exit that is found once in 10,000 tries costs 10,000, and a sweep moves by at most 1."""
    model = corridor(2, end=1e-4)
    solver = ValueIteration(Tables.of(model), 1.0)
    solver.sweep()
    assert solver.residual == 1
    assert solver.error_bound > 9_999
    plan = solver.solve(1e-6)
    assert plan.values == pytest.approx([-10_001, -10_000], rel=1e-9)
    assert plan.sweeps < 10  # exact evaluation of the policy, not sweeping, found it


def test_bound_without_discount_is_the_true_distance():
    model = gridworld.Config().make().spec.model
    truth, solver = best(model, 1.0), ValueIteration(Tables.of(model), 1.0)
    bounds = []
    for _ in range(8):
        solver.sweep()
        if np.isfinite(solver.error_bound):
            error = np.abs(solver.values - truth).max()
            bounds.append(solver.error_bound)
            assert error <= solver.error_bound <= error + 1e-12
    assert len(bounds) > 3
    assert bounds[-1] < 1e-12


def test_greedy_without_discount_reaches_the_goal_where_waiting_is_as_good():
    """On ice that does not slip, every safe state is worth 1, and so is to stand still for ever."""
    lake = gridworld.Config(
        map=("S...", ".X.X", "...X", "X..G"), step_reward=0.0, goal_reward=1.0, pit_reward=0.0
    )
    model = lake.make().spec.model
    values = best(model, 1.0)
    policy = Tables.of(model).greedy(values, 1.0)
    one_hot = np.eye(4)[policy] * model.action_mask
    assert policy_values(model, one_hot, 1.0) == pytest.approx(values, abs=1e-12)
    # Negative control: the first of the best stands still.
    first = Tables.of(model).action_values(values, 1.0).argmax(1)
    assert first[0] == 0
    with pytest.raises(Mistake, match="never ends"):
        policy_values(model, np.eye(4)[first] * model.action_mask, 1.0)
    for solver in SOLVERS.values():
        plan = solver(Tables.of(model), 1.0).solve()
        assert plan.values == pytest.approx(values, abs=1e-9)
        assert policy_values(model, np.eye(4)[plan.policy] * model.action_mask, 1.0)[0] == 1


def test_greedy_takes_the_first_of_equals_and_0_where_it_is_over():
    rows = [(0, a, 1, 1.0, r, False) for a, r in enumerate([1.0, 2.0, 2.0 + 1e-14])]
    model = Model.of(2, 3, rows, np.array([1.0, 0.0]))
    for discount in (0.9, 1.0):
        assert Tables.of(model).greedy(np.zeros(2), discount).tolist() == [1, 0]


def test_prioritized_sweeping_needs_fewer_backups_on_a_maze():
    """None of its sweeps has more backups than states."""
    maze = gridworld.Config(map="maze", step_reward=0.0, goal_reward=1.0).make().spec.model
    sweeps = {}
    for order in ORDERS:
        plan = ValueIteration(Tables.of(maze), 0.95, order).solve(1e-9)
        assert plan.values == pytest.approx(best(maze, 0.95), abs=1e-9)
        sweeps[order] = plan.sweeps
    assert sweeps["prioritized"] < sweeps["gauss_seidel"] < sweeps["synchronous"]
    assert sweeps["prioritized"] < sweeps["synchronous"] / 5


def test_priorities_bound_how_far_values_are_from_their_backups():
    model = random_model(3, ends=0.1)
    solver = ValueIteration(Tables.of(model), 0.9, "prioritized")
    for _ in range(8):
        before = solver.priority.copy()
        solver.sweep()
        backups = np.array(plain_action_values(model, solver.values, 0.9)).max(1)
        distance = np.abs(np.where(model.terminal, 0, backups) - solver.values)
        assert (distance <= solver.priority + 1e-12).all()
    # Negative control: the priorities of one sweep earlier say nothing about where it is now.
    assert before.max() > solver.priority.max()


def test_known_values():
    grid = gridworld.Config().make().spec.model  # Sutton & Barto, figure 4.1
    values = policy_values(grid, planning.equal_chances(grid.action_mask), 1.0)
    assert values == pytest.approx(
        [0, -14, -20, -22, -14, -18, -20, -20, -20, -20, -18, -14, -22, -20, -14, 0], abs=1e-9
    )
    gambler = planning.optimal(model_of("gamblers_problem"), 1.0).values  # figure 4.3
    assert gambler[[25, 50, 75]] == pytest.approx([0.16, 0.4, 0.64], abs=1e-12)
    walk = model_of("random_walk")  # example 6.2
    middle = policy_values(walk, planning.equal_chances(walk.action_mask), 1.0)[1:-1]
    assert middle == pytest.approx(np.arange(1, 6) / 6, abs=1e-12)
    lake = planning.optimal(model_of("FrozenLake-v1"), 1.0).values
    assert lake[0] == pytest.approx(14 / 17, abs=1e-12)
    assert planning.optimal(model_of("CliffWalking-v1"), 1.0).values[36] == pytest.approx(-13)


def test_linear_equations_by_iteration_equal_those_by_elimination(monkeypatch):
    model = random_model(0, num_states=300, ends=0.1)
    uniform = planning.equal_chances(model.action_mask)
    for discount in (0.99, 1.0):
        truth = exact(model, uniform, discount)
        for limit in (0, 1000):
            monkeypatch.setattr(planning, "DIRECT", limit)
            solution = planning.solve_linear(Tables.of(model).under(uniform), discount)
            assert np.abs(solution.values - truth).max() < 1e-10
            assert solution.error < 1e-8


def test_many_threads_find_the_same_to_the_last_bit():
    model = random_model(0, num_states=997)
    tables, values = Tables.of(model), np.random.default_rng(0).normal(size=997)
    results = []
    for kernel in (sweeps.serial, sweeps.parallel):
        new, policy = np.empty(997), np.empty(997, np.int64)
        results.append((*kernel(tables.rows, 0.9, values, new, policy), new, policy))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)


def test_model_of_arrays_equals_the_model_of_its_rows():
    random = np.random.default_rng(0)
    following = random.integers(6, size=(6, 2, 3)).astype(np.int32)
    probability = random.dirichlet(np.ones(3), size=(6, 2))
    probability[1, 1], probability[2, 0] = 0, [0, 1, 0]  # an illegal action, fewer successors
    reward, over = random.normal(size=(6, 2, 3)), random.random((6, 2, 3)) < 0.3
    rows = [
        (s, a, following[s, a, k], probability[s, a, k], reward[s, a, k], over[s, a, k])
        for s, a, k in itertools.product(range(6), range(2), range(3))
    ]
    start = np.full(6, 1 / 6)
    one = Model.from_arrays(following, probability, reward, over)
    other = Model.of(6, 2, rows, start)
    assert np.allclose(one.dense(), other.dense())
    assert np.allclose(one.expected_reward, other.expected_reward)
    assert np.array_equal(one.action_mask, other.action_mask)
    assert np.array_equal(one.start, start)
    with pytest.raises(Mistake, match=r"sum to 0\.5"):
        Model.from_arrays(following, probability / 2, reward)
    with pytest.raises(Mistake, match="of the same states and actions"):
        Model.from_arrays(following, probability, reward[:3])
    with pytest.raises(Mistake, match=r"must be in 0..5"):
        Model.from_arrays(following + 6, probability, reward)
    whole = Model.from_arrays(following, np.full((6, 2, 3), 1 / 3), reward[:, :, 0])
    assert np.allclose(whole.expected_reward, reward[:, :, 0])


@pytest.mark.parametrize("discount", [-0.1, 1.1, float("nan")])
def test_discount_outside_0_to_1_is_a_mistake(discount):
    model = corridor(3)
    for act in (
        lambda: policy_values(model, np.eye(2)[[0, 0, 0]], discount),
        lambda: ValueIteration(Tables.of(model), discount),
        lambda: PolicyIteration(Tables.of(model), discount),
    ):
        with pytest.raises(Mistake, match="a discount must be between 0 and 1"):
            act()


def test_what_is_no_policy_is_a_mistake():
    model = corridor(3)
    good = np.array([[0.5, 0.5], [0.5, 0.5], [1, 0]])
    assert np.isfinite(policy_values(model, good, 1.0)).all()
    for wrong, sentence in [
        (good[:2], "3 states"),
        (good * 0.9, "in state 0 sum to 0.9, not 1"),
        (good * [1, -1], "must give probabilities, and -0.5 is none"),
        (good * np.nan, "must give probabilities"),
        (good[[0, 1, 0]], "action 1 in state 2, where it is illegal"),
    ]:
        with pytest.raises(Mistake, match=sentence):
            policy_values(model, wrong, 0.9)
    waits = np.array([[1, 0], [0, 1], [1, 0]])
    with pytest.raises(Mistake, match="from state 0 never ends"):
        policy_values(model, waits, 1.0)
    assert policy_values(model, waits, 0.9) == pytest.approx([-10, -10, -1])


def test_what_cannot_be_solved_is_a_mistake():
    endless = Tables.of(random_model(0, ends=0.0))
    for solver in SOLVERS.values():
        with pytest.raises(Mistake, match="has no end whatever is done"):
            solver(endless, 1.0)
    with pytest.raises(Mistake, match="allow a larger error"):
        ValueIteration(endless, 0.99).solve(1e-15)
    with pytest.raises(Mistake, match="allow a larger error"):
        PolicyIteration(endless, 0.99).solve(1e-15)
    with pytest.raises(Mistake, match="after 3 sweeps"):
        ValueIteration(endless, 0.99).solve(1e-6, max_sweeps=3)


def test_best_undiscounted_plan_says_how_exact_it_is_where_that_is_less_than_asked():
    """On a walk whose direction one may choose, every state is worth 1."""
    model = random_walk.Config(num_states=9_999).make().spec.model
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what overflows on the way is made good by elimination
        plan = PolicyIteration(Tables.of(model), 1.0).solve(1e-13)
    assert 1e-13 < plan.error_bound < 1e-9
    assert np.abs(plan.values - ~model.terminal).max() <= plan.error_bound


def spec_of(model: Model | None, num_envs: int = 2, **more: Any) -> Spec:
    space = Discrete(model.num_states if model else 3)
    return Spec(num_envs, space, Discrete(model.num_actions if model else 2), model=model, **more)


def test_policies_are_found_by_name(tmp_path):
    model = corridor(3)
    own = np.array([[0.2, 0.8], [0.5, 0.5], [1, 0]])
    spec = spec_of(model, policies={"lazy": own})
    assert policy_of(spec, "uniform", 1.0).tolist() == [[0.5, 0.5], [0.5, 0.5], [1, 0]]
    assert policy_of(spec, "optimal", 1.0).tolist() == [[1, 0], [1, 0], [1, 0]]
    assert np.array_equal(policy_of(spec, "lazy", 1.0), own)
    path = tmp_path / "own.npy"
    np.save(path, own)
    assert np.array_equal(policy_of(spec, str(path), 1.0), own)
    assert (policy_of(spec_of(None), "uniform", 1.0) == 0.5).all()
    np.save(path, own[:2])
    (tmp_path / "text.npy").write_text("none")
    for name, one, sentence in [
        (str(path), spec, "3 states"),
        (str(tmp_path / "text.npy"), spec, "cannot be read"),
        (str(tmp_path / "missing.npy"), spec, "cannot be read"),
        ("lzay", spec, "did you mean 'lazy'"),
        ("optimal", spec_of(None), "this one has none"),
        ("uniform", Spec(1, Box(0, 1, (3,)), Discrete(2)), "a table of states and actions"),
    ]:
        with pytest.raises(Mistake, match=sentence) as mistake:
            policy_of(one, name, 1.0)
        assert len(str(mistake.value).splitlines()) == 1


AGENTS: dict[str, Any] = {
    **{order: value_iteration.Config(order=order) for order in ORDERS},
    "dense": value_iteration.Config(representation="dense"),
    "policy iteration": policy_iteration.Config(),
    "modified": policy_iteration.Config(evaluation_sweeps=3, sweeps_per_step=2),
    "evaluation": policy_evaluation.Config(),
    "optimal": policy_evaluation.Config(policy="optimal", order="gauss_seidel"),
}


def learned(env: Any, agent: Any, num_steps: int, step: Step | None = None) -> list[dict]:
    moments = play(env, agent, env.reset(0) if step is None else step)
    return [agent.learn(collect(moments, agent.horizon)) for _ in range(num_steps)]


@pytest.mark.parametrize("name", AGENTS)
def test_agent_reaches_the_exact_values_while_it_plays(name):
    env = gridworld.Config(num_envs=3).make()
    agent = AGENTS[name].make(env.spec, 0)
    metrics = learned(env, agent, 400)
    model, uniform = env.spec.model, planning.equal_chances(env.spec.model.action_mask)
    truth = exact(model, uniform, 1.0) if name == "evaluation" else best(model, 1.0)
    assert agent.solver.values == pytest.approx(truth, abs=1e-6)
    for named in metrics:
        assert all(type(value) in (int, float) for value in named.values())
        assert np.isfinite([*named.values()]).all()
    assert metrics[-1]["train/value"] == pytest.approx(model.start @ truth, abs=1e-6)
    assert metrics[-1]["train/error_bound"] < 1e-6
    assert metrics[-1]["train/sweeps"] == 400 * AGENTS[name].sweeps_per_step
    decision = agent.act(Step.at(np.arange(16), 4), explore=False)
    assert np.isfinite(decision.notes["q_values"]).all()
    assert decision.notes["value"] == pytest.approx(truth, abs=1e-6)
    if name != "evaluation":
        chosen = decision.notes["q_values"][np.arange(16), decision.action]
        assert chosen == pytest.approx(decision.notes["q_values"].max(1))


@pytest.mark.parametrize("name", AGENTS)
def test_resumed_agent_is_bitwise_the_same(name, tmp_path):
    spec = worlds.Config(id="FrozenLake-v1").make().spec
    steps = Step.at(np.arange(16), 4)
    agent, other = (AGENTS[name].make(spec, seed) for seed in (0, 1))
    for _ in range(5):
        agent.learn(None)
    checkpoint.save(tmp_path, "1", agent.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path / "1"))
    for _ in range(40):
        assert np.array_equal(agent.act(steps).action, other.act(steps).action)
        assert agent.learn(None) == other.learn(None)
        assert np.array_equal(agent.solver.values, other.solver.values)


def test_evaluation_agent_plays_the_policy_that_it_evaluates():
    model = random_model(2, ends=0.0)
    given_policy = np.random.default_rng(0).dirichlet(np.ones(3), size=30) * model.action_mask
    given_policy /= given_policy.sum(1, keepdims=True)
    spec = spec_of(model, policies={"own": given_policy})
    agent = policy_evaluation.Config(policy="own", discount=0.9).make(spec, 0)
    step = Step.at(np.repeat(np.arange(30), 2000), 3, action_mask=model.action_mask.repeat(2000, 0))
    action = agent.act(step).action.reshape(30, 2000)
    share = (action[:, :, None] == np.arange(3)).mean(1)
    assert np.abs(share - given_policy).max() < 5 * 0.5 / np.sqrt(2000)


def test_evaluation_agent_shows_the_policy_that_it_evaluates_and_not_what_it_drew():
    env = gridworld.Config().make()
    agent = policy_evaluation.Config().make(env.spec, 0)
    mask = env.spec.model.action_mask
    assert np.allclose(maps.known(agent, env.spec)[1], planning.equal_chances(mask))


def test_agents_need_a_model_and_say_so():
    for settings in AGENTS.values():
        with pytest.raises(Mistake, match="plans from a model, and this world has none"):
            settings.make(spec_of(None), 0)
    with pytest.raises(Mistake, match="plans from a model"):
        value_iteration.Config().make(replace(spec_of(None), model="chess"), 0)


def test_plan_of_another_world_is_a_mistake():
    state = value_iteration.Config().make(spec_of(corridor(3)), 0).state_dict()
    with pytest.raises(Mistake, match="a world of 3 states"):
        value_iteration.Config().make(spec_of(corridor(4)), 0).load_state_dict(state)
