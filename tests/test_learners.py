"""Laws of `rlplay/learners.py` that every tabular learner of agents/ keeps, and of its kernels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from agents.uniform import Uniform
from rlplay import checkpoint, config, learners, planning, values
from rlplay.core import Agent, Array, Decision, Env, Mistake, Spec, Step, Trajectory
from rlplay.markov import MarkovEnv
from rlplay.model import Model
from rlplay.play import Moment, collect, play

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
    "n_step_td": {"n_step": 3},
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
                    rows.append(
                        (state, action, arrived, probability * 0.85, random.normal(), False)
                    )
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


def of_envs(trajectory: Trajectory, columns: list[int]) -> Trajectory:
    """Return what some envs alone went through."""
    step, decision = trajectory
    notes = {name: note[:, columns] for name, note in decision.notes.items()}
    leaves = (None if leaf is None else leaf[:, columns] for leaf in step)
    return Trajectory(Step(*leaves), Decision(decision.action[:, columns], notes))


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
def test_what_was_under_way_when_the_world_started_anew_teaches_nothing(name, settings):
    greedy = name == "off_policy_monte_carlo" and "policy" not in settings
    if "policy" in settings:
        settings = {"policy": "uniform"}  # which it follows for long enough
    env = world(1, max_steps=30)
    agents = [make(name, settings, env.spec) for _ in range(3)]
    trajectories = lived(env, agents[0], 400)
    ends = [t for t, one in enumerate(trajectories) if one.step.done[1, 0]]
    start, end = max(pairwise(ends), key=lambda pair: pair[1] - pair[0])
    assert end - start > 4
    under_way, episode = trajectories[start + 2 : end], trajectories[: ends[0] + 1]
    for agent in agents:
        for trajectory in under_way:
            agent.learn(trajectory)
    cut, forgetful, careless = agents
    for table, array in cut.tables.items():
        forgetful.tables[table], careless.tables[table] = array.copy(), array.copy()
    cut.cut()
    fresh = make(name, settings, env.spec)
    counters = {key: cut.memory[key].copy() for key in ("time", "num_seen") if key in cut.memory}
    forgetful.memory = {key: array.copy() for key, array in fresh.memory.items()} | counters
    for agent in agents:
        agent.generator = np.random.default_rng(1)
        for trajectory in episode:
            agent.learn(trajectory)
    assert plain(cut.tables) == plain(forgetful.tables)
    # Negative control, for those that remember, and do not stop where they were not greedy.
    if cut.memory.keys() - {"time", "num_seen"} and not greedy:
        assert plain(cut.tables) != plain(careless.tables)


@every_agent
def test_tables_that_grow_hold_what_tables_of_all_states_hold(name, settings):
    settings = {**settings, "policy": "uniform"} if "policy" in settings else settings
    env, code = world(), np.array([7, 0, 10**12, 5, 3, 10**9, 1])
    spec = dataclasses.replace(env.spec, model=None)
    hidden = dataclasses.replace(spec, observation_space=Discrete(10**12 + 1))
    agent, other = make(name, settings, spec), make(name, settings, hidden)
    assert agent.enumerated
    assert not other.enumerated
    other.tables = {table: array[:, :2].copy() for table, array in other.tables.items()}
    for trajectory in hand_in_hand(env, agent, other, code, 120):
        assert trajectory.decision.action.shape == (1, 3)
    visited = [state for state in range(6) if code[state] in other.row_of]
    assert len(visited) >= 5
    for table in ("q", "value", "count"):
        if table in agent.tables:
            rows = [other.row_of[code[state]] for state in visited]
            assert np.array_equal(agent.tables[table][:, visited], other.tables[table][:, rows])


def hand_in_hand(
    env: MarkovEnv, agent: Any, other: Any, code: Array, num_steps: int
) -> Iterator[Trajectory]:
    """Let two agents live through the same, one of which sees states by their `code`."""
    step = env.reset(0)
    for _ in range(num_steps):
        decision = agent.act(step)
        coded = other.act(step._replace(observation=code[step.observation]))
        assert np.array_equal(decision.action, coded.action)
        following = env.step(decision.action)
        yield (trajectory := collect(iter([Moment(step, decision, following)]), 1))
        agent.learn(trajectory)
        seen = code[trajectory.step.observation]
        other.learn(trajectory._replace(step=trajectory.step._replace(observation=seen)))
        step = following


@every_agent
def test_notes_are_what_is_known_of_each_state_also_of_other_numbers_of_envs(name, settings):
    agent = make(name, settings, world(2).spec)
    lived(world(2), agent, 60)
    mask = np.vstack([labyrinth().action_mask[:5]] * 2)
    step = Step.at(np.tile(np.arange(5), 2), 3, action_mask=mask)
    decision = agent.act(step, explore=False)
    table, note = ("q", "q_values") if "q" in agent.tables else ("value", "value")
    expected = agent.tables[table][np.arange(10) % 2, step.observation]
    assert np.array_equal(decision.notes[note], expected)
    assert mask[np.arange(10), decision.action].all()
    if table == "q":
        assert np.array_equal(decision.action, np.where(mask, expected, -np.inf).argmax(1))
    else:
        assert np.allclose(decision.notes["policy"].sum(1), 1)
        assert not decision.notes["policy"][~mask].any()


@every_agent
def test_player_who_does_not_learn_needs_not_as_many_envs(name, settings):
    agent = make(name, settings, world(3).spec)
    lived(world(3), agent, 30)
    player = make(name, settings, world(2).spec, learns=False)
    player.load_state_dict(agent.state_dict())
    step = world(2).reset(0)
    assert player.act(step, explore=False).action.tolist() == (
        agent.act(step, explore=False).action.tolist()
    )
    with pytest.raises(Mistake, match=r"set env\.num_envs=3"):
        make(name, settings, world(2).spec).load_state_dict(agent.state_dict())


@every_agent
@pytest.mark.parametrize(
    "space",
    [Box(0, 255, (4, 84, 84), np.uint8), Box(-1, 1, (4,))],
    ids=["pixels", "cartpole"],
)
def test_world_without_discrete_states_is_one_sentence(name, settings, space):
    with pytest.raises(Mistake, match="table of discrete states") as raised:
        make(name, settings, Spec(2, space, Discrete(2)))
    assert len(str(raised.value).splitlines()) == 1


@every_agent
def test_too_many_learners_for_the_memory_is_one_sentence(name, settings):
    with pytest.raises(Mistake, match=r"set env\.num_envs lower"):
        make(
            name,
            {**settings, "policy": "uniform"} if "policy" in settings else settings,
            Spec(10**6, Discrete(10**6), Discrete(4)),
        )


@pytest.mark.parametrize("name", PREDICTION)
def test_unknown_policy_is_one_sentence(name):
    with pytest.raises(Mistake, match=r"no policy 'optimall'.*did you mean 'optimal'"):
        make(name, {"policy": "optimall"}, world().spec)


@every_agent
def test_tables_are_weighed_together_before_any_is_made(name, settings, monkeypatch):
    """Each of them fits; together they do not."""
    settings = {**settings, "policy": "uniform"} if "policy" in settings else settings
    spec = world().spec
    sizes = [table.nbytes for table in make(name, settings, spec).tables.values()]
    monkeypatch.setattr(learners, "MAX_BYTES", sum(sizes))
    make(name, settings, spec)
    monkeypatch.setattr(learners, "MAX_BYTES", sum(sizes) - 1)
    assert max(sizes) < sum(sizes) - 1
    monkeypatch.setattr(np, "full", None)
    with pytest.raises(Mistake, match=r"tables .* need 0 GB; set env\.num_envs lower"):
        make(name, settings, spec)


def test_dyna_q_says_the_sum_of_its_tables():
    with pytest.raises(Mistake, match="need 41 GB"):
        make("dyna_q", {}, Spec(200, Discrete(10**6), Discrete(4)))


# Laws of prediction.


def test_no_error_is_told_where_tables_have_rows_for_visited_states_only(monkeypatch):
    monkeypatch.setattr(learners, "MAX_STATES", 6)
    env = world()
    agent = make("td0", {"discount": 0.9}, env.spec)
    assert not agent.enumerated
    for trajectory in watched(env, 40):
        assert agent.learn(trajectory).keys() == {"train/td_error"}


def test_no_large_world_is_solved_for_the_sake_of_a_metric(monkeypatch):
    agent = make("td0", {"discount": 0.9}, world().spec)
    assert "train/rms_error" in agent.learn(watched(world(), 1)[0])
    monkeypatch.setattr(planning, "DIRECT", 6)
    monkeypatch.setattr(planning, "policy_values", None)
    agent = make("td0", {"discount": 0.9}, world().spec)
    assert "train/rms_error" not in agent.learn(watched(world(), 1)[0])


@pytest.mark.parametrize("name", PREDICTION)
def test_policy_without_exact_values_is_learned_of_all_the_same(name):
    """Undiscounted, and no episode ever ends but by being cut short."""
    rows = [(s, a, (s + 1 + a) % 3, 1.0, 1.0, False) for s in range(3) for a in range(2)]
    env = MarkovEnv(Model.of(3, 2, rows, np.ones(3) / 3), 2, max_steps=5)
    agent = make(name, {"policy": "uniform"}, env.spec)
    with pytest.raises(Mistake, match="never ends"):
        planning.policy_values(env.spec.model, np.full((3, 2), 0.5), 1.0)
    lived(env, agent, 40)
    assert (agent.tables["value"] > 0).all()
    for trajectory in lived(env, agent, 5):
        assert "train/rms_error" not in agent.learn(trajectory)


def test_rms_error_is_over_the_states_that_the_policy_visits():
    env = world(3)
    agent = make("td0", {"discount": 0.9, "initial_value": 2.0}, env.spec)
    lived(env, agent, 50)
    metrics = agent.learn(watched(env, 1)[0])
    model = env.spec.model
    exact = planning.policy_values(model, planning.equal_chances(model.action_mask), 0.9)
    difference = agent.tables["value"][:, :5] - exact[:5]  # not 5, the end, nor 6, out of reach
    assert np.allclose(metrics["train/rms_error"], np.sqrt((difference**2).mean(1)))
    assert metrics["train/rms_error"].shape == (3,)
    assert metrics["train/rms_error"].dtype == np.float64
    assert abs(exact[6] - 2.0) > 0.01


def test_rms_error_is_over_fewer_states_where_the_policy_visits_fewer():
    """In state 0 this policy does what leads to two states only, and so on."""
    model = Model.of(
        4,
        2,
        [(0, 0, 1, 1.0, 0.0, False), (0, 1, 2, 1.0, 0.0, False)]
        + [(s, a, 3, 1.0, 1.0, True) for s in (1, 2) for a in (0, 1)],
        np.array([1.0, 0, 0, 0]),
    )
    policy = np.array([[1.0, 0], [1, 0], [1, 0], [0, 0]])
    assert values.visited(model, policy).tolist() == [True, True, False, False]
    assert values.visited(model, np.full((4, 2), 0.5)).tolist() == [True, True, True, False]


def test_policy_from_a_file_is_played(tmp_path):
    env = world(2)
    policy = np.zeros((7, 3))
    policy[[0, 1, 2, 3, 4, 6], [1, 0, 0, 0, 1, 0]] = 1
    np.save(tmp_path / "mine.npy", policy)
    agent = make("td0", {"policy": str(tmp_path / "mine.npy")}, env.spec)
    for trajectory in lived(env, agent, 40):
        live = ~trajectory.step.done[0]
        state, action = trajectory.step.observation[0][live], trajectory.decision.action[0][live]
        assert (policy[state, action] == 1).all()


# Laws of the kernels.


def test_actions_are_drawn_as_likely_as_the_policy_says():
    random = np.random.default_rng(0)
    policy = np.tile([0.0, 0.2, 0.0, 0.5, 0.3], (100_000, 1))
    counts = np.bincount(learners.draw(policy, random), minlength=5)
    assert counts[[0, 2]].tolist() == [0, 0]
    assert np.allclose(counts / 1e5, policy[0], atol=4 * np.sqrt(0.25 / 1e5))


def test_impossible_action_is_not_drawn_even_where_probabilities_miss_one():
    policy = np.tile([0.4, 0.5, 0.0], (1000, 1))
    assert set(learners.draw(policy, np.random.default_rng(0)).tolist()) == {0, 1}


def test_choice_is_as_likely_as_soft_says_and_legal():
    random = np.random.default_rng(0)
    q_values = np.tile([1.0, 3.0, 9.0, 3.0, -1.0], (100_000, 1))
    mask = np.tile([True, True, False, True, True], (100_000, 1))
    for epsilon in (0.0, 0.3, 1.0):
        policy = learners.soft(q_values[:1], mask[:1], epsilon)[0]
        best, rest = (1 - epsilon) / 2 + epsilon / 4, epsilon / 4
        assert np.allclose(policy, [rest, best, 0, best, rest])
        counts = np.bincount(learners.choose(q_values, mask, epsilon, random), minlength=5)
        assert np.allclose(counts / 1e5, policy, atol=4 * np.sqrt(0.25 / 1e5))
        assert counts[2] == 0


@pytest.mark.parametrize("num_actions", [2, 5, 16, 33])
def test_choice_is_legal_even_where_values_are_not_numbers(num_actions):
    random = np.random.default_rng(0)
    shape = (5000, num_actions)
    mask = random.random(shape) < 0.3
    mask[np.arange(5000), random.integers(num_actions, size=5000)] = True
    value = random.normal(size=shape)
    some = np.where(random.random(shape) < 0.5, np.nan, value)
    for rows in (value, some, np.full(shape, np.nan), np.full(shape, -np.inf), value.round()):
        for epsilon in (0.0, 0.5):
            action = learners.choose(rows, mask, epsilon, random)
            assert ((action >= 0) & (action < num_actions)).all()
            assert mask[np.arange(5000), action].all()
    greedy = learners.choose(value, mask, 0.0, random)
    assert np.array_equal(greedy, learners.best(value, mask))


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_expected_value_is_the_mean_over_soft(epsilon):
    random = np.random.default_rng(0)
    q, state = random.normal(size=(50, 4, 3)), random.integers(4, size=50)
    mask = random.random((50, 3)) < 0.6
    mask[:, 1] = True
    here = q[np.arange(50), state]
    expected = (learners.soft(here, mask, epsilon) * here).sum(1)
    assert np.allclose(learners.expected(q, state, mask, epsilon), expected)


def test_discount_is_not_rounded_to_float32():
    trajectory = watched(world(), 2)[0]
    agent = make("q_learning", {"discount": 0.9}, world().spec)
    t = agent.transition(trajectory, 0.9)
    assert t.discount.dtype == t.reward.dtype == np.float64
    assert (t.discount == 0.9).any()
    assert np.float64(np.float32(0.9)) != 0.9


def test_whole_number_as_initial_value_makes_no_table_of_whole_numbers():
    for name, settings in ALL:
        agent = make(name, {**settings, "initial_value": 1}, world().spec)
        assert all(agent.tables[t].dtype == np.float64 for t in ("q", "value") if t in agent.tables)
