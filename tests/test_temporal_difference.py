"""Laws of the agents that learn from the difference between two estimates: TD(0), n-step TD,
TD(lambda), SARSA, expected SARSA, Q-learning, double Q-learning, SARSA(lambda), Dyna-Q."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agents.uniform import Uniform
from envs import gridworld, gymnasium, random_walk
from rlplay import config, planning
from rlplay.core import Agent, Array, Decision, Env, Mistake, Spec, Step, Trajectory
from rlplay.markov import MarkovEnv
from rlplay.model import Model
from rlplay.play import collect, play

CONTROL = ("q_learning", "expected_sarsa", "sarsa", "sarsa_lambda", "double_q_learning", "dyna_q")
PREDICTION = ("td0", "n_step_td", "td_lambda", "monte_carlo_prediction")


def labyrinth(ends: float = 0.15, revisits: bool = True, seed: int = 0) -> Model:
    """Return a random model of 6 states and 3 actions, of which some are illegal; state 5 ends
    every episode. Without `revisits` no state comes twice in an episode."""
    random, rows = np.random.default_rng(seed), []
    for state in range(5):
        for action in range(3):
            if action != state % 4:
                choices = np.arange(6) if revisits else np.arange(state + 1, 6)
                following = random.choice(choices, min(2, len(choices)), replace=False)
                for arrived in following:
                    chance = (1 - ends) / len(following)
                    rows.append((state, action, arrived, chance, random.normal(), False))
                rows.append((state, action, 5, ends, 1.0, True))
    return Model.of(6, 3, rows, np.array([0.5, 0.5, 0, 0, 0, 0]))


def world(num_envs: int = 3, max_steps: int = 6, **settings: Any) -> MarkovEnv:
    return MarkovEnv(labyrinth(**settings), num_envs, max_steps=max_steps)


def make(name: str, spec: Spec, seed: int = 0, **settings: Any) -> Any:
    return config.plugin("agents", name).Config(**settings).make(spec, seed)


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


def taught(trajectories: list[Trajectory], name: str, spec: Spec, **settings: Any) -> Any:
    """Return an agent that learned from what another one went through."""
    agent = make(name, spec, **settings)
    for trajectory in trajectories:
        agent.learn(trajectory)
    return agent


def whole_episodes(trajectories: list[Trajectory]) -> list[Trajectory]:
    """Leave out, of the only env, the episode that had not ended."""
    last = max(t for t, one in enumerate(trajectories) if one.step.done[1, 0])
    return trajectories[: last + 1]


def same_values(left: Any, right: Any, name: str = "value", exactly: bool = False) -> bool:
    compare = np.array_equal if exactly else lambda a, b: np.allclose(a, b, rtol=0, atol=1e-12)
    assert left.tables[name].any()
    return compare(left.tables[name], right.tables[name])


# The book's pseudo-code once more, in plain Python, for one learner.


def td_control(
    trajectories: list[Trajectory], i: int, target: Callable[..., float], step_size: float
) -> dict[tuple[int, int], float]:
    """Q by one-step learning towards r + 0.9 target(q, s', legal, a'), where a' is None at an end
    of an episode."""
    q: dict[tuple[int, int], float] = defaultdict(float)
    count: dict[tuple[int, int], int] = defaultdict(int)
    live = [one for one in trajectories if not one.step.done[0, i]]
    for one, following in zip(live, [*live[1:], None], strict=True):
        step = one.step
        pair = int(step.observation[0, i]), int(one.decision.action[0, i])
        next_action = None
        if following is not None and not step.done[1, i]:
            next_action = int(following.decision.action[0, i])
        elif target is as_done and not step.done[1, i]:
            break  # what SARSA cannot learn of yet
        next_state, legal = int(step.observation[1, i]), np.flatnonzero(step.action_mask[1, i])
        g = float(step.reward[1, i, 0])
        if not step.terminated[1, i]:
            g += 0.9 * target(q, next_state, legal, next_action)
        count[pair] += 1
        q[pair] += (step_size or 1 / count[pair]) * (g - q[pair])
    return q


def best(q: Any, state: int, legal: Array, action: int | None) -> float:
    return max(q[state, b] for b in legal)


def mean_of_soft(q: Any, state: int, legal: Array, action: int | None) -> float:
    return 0.7 * best(q, state, legal, None) + 0.3 * np.mean([q[state, b] for b in legal])


def as_done(q: Any, state: int, legal: Array, action: int | None) -> float:
    return mean_of_soft(q, state, legal, None) if action is None else q[state, action]


@pytest.mark.parametrize("step_size", [0.1, 0.0])
@pytest.mark.parametrize(
    ("name", "target"),
    [("q_learning", best), ("expected_sarsa", mean_of_soft), ("sarsa", as_done)],
)
def test_control_learns_what_the_pseudo_code_says(name, target, step_size):
    trajectories = watched(world(), 300)
    settings = {"discount": 0.9, "epsilon": 0.3, "step_size": step_size}
    agent = taught(trajectories, name, world().spec, **settings)
    for i in range(3):
        q = np.zeros((6, 3))
        for (state, action), value in td_control(trajectories, i, target, step_size).items():
            q[state, action] = value
        assert np.allclose(agent.tables["q"][i], q, rtol=0, atol=1e-12)


def test_td0_learns_what_the_pseudo_code_says():
    trajectories = watched(world(), 200)
    agent = taught(trajectories, "td0", world().spec, discount=0.9, step_size=0.2)
    for i in range(3):
        value = np.zeros(6)
        for step, _ in trajectories:
            if not step.done[0, i]:
                s, next_s = step.observation[:, i]
                g = step.reward[1, i, 0] + 0.9 * value[next_s] * (not step.terminated[1, i])
                value[s] += 0.2 * (g - value[s])
        assert np.allclose(agent.tables["value"][i], value, rtol=0, atol=1e-12)


def test_double_q_learning_learns_what_the_pseudo_code_says():
    trajectories = watched(world(), 200)
    agent = taught(trajectories, "double_q_learning", world().spec, discount=0.9, step_size=0.2)
    coins = make("double_q_learning", world().spec).generator
    q = np.zeros((2, 3, 6, 3))
    for step, decision in trajectories:
        sides = coins.integers(2, size=3)
        for i in range(3):
            if not step.done[0, i]:
                (s, next_s), a, k = step.observation[:, i], decision.action[0, i], sides[i]
                legal = np.flatnonzero(step.action_mask[1, i])
                b = legal[q[k, i, next_s, legal].argmax()]
                g = step.reward[1, i, 0]
                g += 0.9 * q[1 - k, i, next_s, b] * (not step.terminated[1, i])
                q[k, i, s, a] += 0.2 * (g - q[k, i, s, a])
    assert np.allclose(agent.tables["q1"], q[0], rtol=0, atol=1e-12)
    assert np.allclose(agent.tables["q2"], q[1], rtol=0, atol=1e-12)
    assert np.allclose(agent.tables["q"], q.mean(0), rtol=0, atol=1e-12)


# What equals what.


@pytest.mark.parametrize("step_size", [0.3, 0.0])
def test_n_step_td_with_one_step_is_td0(step_size):
    trajectories, spec = watched(world(), 200), world().spec
    settings = {"discount": 0.9, "step_size": step_size}
    td0 = taught(trajectories, "td0", spec, **settings)
    assert same_values(
        td0, taught(trajectories, "n_step_td", spec, n_step=1, **settings), exactly=True
    )
    two = taught(trajectories, "n_step_td", spec, n_step=2, **settings)
    assert not same_values(td0, two)  # negative control


@pytest.mark.parametrize("max_steps", [0, 6])  # with and without episodes that are cut short
def test_n_step_td_beyond_every_episode_is_monte_carlo(max_steps):
    env = world(1, max_steps)
    trajectories = whole_episodes(watched(env, 200))
    settings = {"discount": 0.9, "step_size": 0.3}
    monte_carlo = taught(
        trajectories, "monte_carlo_prediction", env.spec, visits="every", **settings
    )
    long = taught(trajectories, "n_step_td", env.spec, n_step=100, **settings)
    assert same_values(monte_carlo, long, exactly=True)
    short = taught(trajectories, "n_step_td", env.spec, n_step=3, **settings)
    assert not same_values(monte_carlo, short)


@pytest.mark.parametrize("traces", ["accumulating", "replacing", "dutch"])
def test_td_lambda_without_lambda_is_td0(traces):
    trajectories, spec = watched(world(), 200), world().spec
    settings = {"discount": 0.9, "step_size": 0.3}
    td0 = taught(trajectories, "td0", spec, **settings)
    zero = taught(trajectories, "td_lambda", spec, traces=traces, trace_decay=0, **settings)
    assert same_values(td0, zero)
    some = taught(trajectories, "td_lambda", spec, traces=traces, trace_decay=0.5, **settings)
    assert not same_values(td0, some)


def test_offline_td_lambda_with_full_traces_is_every_visit_monte_carlo():
    """Singh & Sutton 1996: exactly, with means over visits, also where states come again."""
    env = world(1, max_steps=0)
    trajectories = whole_episodes(watched(env, 300))
    settings = {"discount": 0.9, "step_size": 0.0}
    every = taught(trajectories, "monte_carlo_prediction", env.spec, visits="every", **settings)
    full = {"trace_decay": 1.0, **settings}
    offline = taught(trajectories, "td_lambda", env.spec, update="offline", **full)
    assert same_values(every, offline)
    # Negative controls: at once is not the same, and first visits are not every visit.
    assert not same_values(every, taught(trajectories, "td_lambda", env.spec, **full))
    first = taught(trajectories, "monte_carlo_prediction", env.spec, visits="first", **settings)
    assert not same_values(first, offline)


def test_offline_td_lambda_with_replacing_traces_is_first_visit_monte_carlo():
    """Singh & Sutton 1996: undiscounted, with a constant step size."""
    env = world(1, max_steps=0)
    trajectories = whole_episodes(watched(env, 300))
    first = taught(trajectories, "monte_carlo_prediction", env.spec, visits="first", step_size=0.2)
    settings = {"trace_decay": 1.0, "step_size": 0.2, "update": "offline"}
    replacing = taught(trajectories, "td_lambda", env.spec, traces="replacing", **settings)
    assert same_values(first, replacing)
    accumulating = taught(trajectories, "td_lambda", env.spec, **settings)
    assert not same_values(first, accumulating)


def test_true_online_td_lambda_with_full_traces_is_constant_step_monte_carlo():
    """van Seijen et al. 2016: exactly when an episode is over, learning at once."""
    env = world(1, max_steps=0)
    trajectories = whole_episodes(watched(env, 300))
    settings = {"discount": 0.9, "step_size": 0.3}
    every = taught(trajectories, "monte_carlo_prediction", env.spec, visits="every", **settings)
    full = {"trace_decay": 1.0, **settings}
    dutch = taught(trajectories, "td_lambda", env.spec, traces="dutch", **full)
    assert same_values(every, dutch)
    assert not same_values(every, taught(trajectories, "td_lambda", env.spec, **full))


@pytest.mark.parametrize("traces", ["dutch", "accumulating"])
def test_traces_look_back_as_far_as_lambda_returns_look_ahead(traces):
    """Sutton & Barto 2018, sections 12.1 to 12.5. Dutch traces, learning at once, are the online
    lambda-return algorithm, which with every step learns anew of the whole episode so far;
    accumulating ones, offline, learn towards the lambda-returns when it is over."""
    online, env = traces == "dutch", world(1, max_steps=0)
    settings = {"discount": 0.9, "step_size": 0.3, "trace_decay": 0.7, "traces": traces}
    settings["update"] = "online" if online else "offline"
    agent, newest, states = make("td_lambda", env.spec, **settings), np.zeros(6), []
    for trajectory in watched(env, 120):
        agent.learn(trajectory)
        step = trajectory.step
        if step.done[0, 0]:
            continue
        if not states:
            before, states, rewards, worth = newest, [step.observation[0, 0]], [], []
        states.append(step.observation[1, 0])
        rewards.append(float(step.reward[1, 0, 0]))
        known = newest if online else before
        worth.append(0.0 if step.terminated[1, 0] else known[states[-1]])
        g, returns = worth[-1], []
        for r, v in zip(reversed(rewards), reversed(worth), strict=True):
            g = r + 0.9 * (0.3 * v + 0.7 * g)
            returns.insert(0, g)
        newest = before.copy()
        for state, g in zip(states, returns, strict=False):
            newest[state] += 0.3 * (g - (newest if online else before)[state])
        if step.done[1, 0]:
            states = []
        if online or step.done[1, 0]:
            assert np.allclose(agent.tables["value"][0], newest, rtol=0, atol=1e-12)
    assert newest.any()


def test_expected_sarsa_with_a_greedy_target_is_q_learning():
    trajectories, spec = watched(world(), 200), world().spec
    settings = {"discount": 0.9, "epsilon": 0.3}
    q_learning = taught(trajectories, "q_learning", spec, **settings)
    greedy = taught(trajectories, "expected_sarsa", spec, target_epsilon=0.0, **settings)
    assert same_values(q_learning, greedy, "q", exactly=True)
    assert not same_values(
        q_learning, taught(trajectories, "expected_sarsa", spec, **settings), "q"
    )


@pytest.mark.parametrize("step_size", [0.3, 0.0])
@pytest.mark.parametrize("traces", ["accumulating", "replacing"])
def test_sarsa_lambda_without_lambda_is_sarsa(traces, step_size):
    trajectories, spec = watched(world(), 200), world().spec
    settings = {"discount": 0.9, "step_size": step_size}
    sarsa = taught(trajectories, "sarsa", spec, **settings)
    settings |= {"traces": traces}
    zero = taught(trajectories, "sarsa_lambda", spec, trace_decay=0.0, **settings)
    assert same_values(sarsa, zero, "q")
    some = taught(trajectories, "sarsa_lambda", spec, trace_decay=0.5, **settings)
    assert not same_values(sarsa, some, "q")


def test_sarsa_lambda_learns_what_the_pseudo_code_says():
    env = world(1)
    trajectories = whole_episodes(watched(env, 200))
    for traces in ("accumulating", "replacing"):
        settings = {"discount": 0.9, "step_size": 0.2, "trace_decay": 0.8, "epsilon": 0.3}
        agent = taught(trajectories, "sarsa_lambda", env.spec, traces=traces, **settings)
        q, trace = np.zeros((6, 3)), np.zeros((6, 3))
        live = [one for one in trajectories if not one.step.done[0, 0]]
        for one, following in zip(live, [*live[1:], live[0]], strict=True):
            step = one.step
            (s, next_s), a = step.observation[:, 0], one.decision.action[0, 0]
            legal = np.flatnonzero(step.action_mask[1, 0])
            ahead = q[next_s, following.decision.action[0, 0]]
            if step.done[1, 0]:
                ahead = 0.7 * q[next_s, legal].max() + 0.3 * q[next_s, legal].mean()
            error = step.reward[1, 0, 0] + 0.9 * ahead * (not step.terminated[1, 0]) - q[s, a]
            trace[s, a] = trace[s, a] + 1 if traces == "accumulating" else 1
            q += 0.2 * error * trace
            trace *= 0.0 if step.done[1, 0] else 0.9 * 0.8
        assert np.allclose(agent.tables["q"][0], q, rtol=0, atol=1e-9)


# Dyna-Q.


def test_dyna_q_without_planning_is_q_learning():
    trajectories, spec = watched(world(), 200), world().spec
    q_learning = taught(trajectories, "q_learning", spec, discount=0.9)
    dyna = taught(trajectories, "dyna_q", spec, discount=0.9, planning_steps=0)
    assert same_values(q_learning, dyna, "q", exactly=True)
    plans = taught(trajectories, "dyna_q", spec, discount=0.9, planning_steps=1)
    assert not same_values(q_learning, plans, "q")


def test_dyna_q_knows_by_thinking_what_q_learning_must_try():
    """After one walk to the goal Q-learning values one action; Dyna-Q the whole way."""
    rows = [(s, a, s + 1 if a else s, 1.0, float(a and s == 7), bool(a and s == 7))
            for s in range(8) for a in range(2)]  # fmt: skip
    env = MarkovEnv(Model.of(9, 2, rows, np.eye(9)[0]), 1)
    for name, settings in (("dyna_q", {"planning_steps": 2000}), ("q_learning", {})):
        trajectories = lived(env, Forced(1), 8)
        agent = taught(trajectories, name, env.spec, discount=0.9, step_size=1.0, **settings)
        right = agent.tables["q"][0, :8, 1]
        expected = 0.9 ** np.arange(7, -1, -1) if name == "dyna_q" else np.eye(8)[7]
        assert np.allclose(right, expected)


class Forced(Agent):
    """Always does the same."""

    def __init__(self, action: int, num_envs: int = 1) -> None:
        self.decision = Decision(np.full(num_envs, action), {})

    def act(self, step: Step, explore: bool = True) -> Decision:
        return self.decision


def test_dyna_q_plus_expects_something_of_what_was_never_tried():
    """In one state with two actions that earn nothing, of which the second is never taken."""
    rows = [(0, a, 0, 1.0, 0.0, False) for a in range(2)]
    env = MarkovEnv(Model.of(1, 2, rows, np.ones(1)), 1)
    trajectories = lived(env, Forced(0), 400)
    settings = {"discount": 0.0, "step_size": 0.5, "planning_steps": 20}
    agent = taught(trajectories, "dyna_q", env.spec, **settings)
    assert not agent.tables["q"].any()
    curious = taught(trajectories, "dyna_q", env.spec, kappa=0.1, **settings)
    assert curious.tables["q"][0, 0, 0] == 0  # just tried
    assert curious.tables["q"][0, 0, 1] == pytest.approx(0.1 * np.sqrt(400), rel=0.02)


# Truncation.


def endless(num_envs: int = 2) -> MarkovEnv:
    """Return a world of one state that earns 1 for ever, cut short after 8 steps."""
    return MarkovEnv(
        Model.of(1, 1, [(0, 0, 0, 1.0, 1.0, False)], np.ones(1)), num_envs, max_steps=8
    )


@pytest.mark.parametrize("name", [*PREDICTION, *CONTROL, "monte_carlo_control"])
def test_truncated_episode_still_bootstraps(name):
    """1 / (1 - 0.98) = 50, and 8 at most where what comes after the cut is held worth nothing."""
    env = endless()
    right, wrong = (make(name, env.spec, discount=0.98, step_size=0.5) for _ in range(2))
    for trajectory in watched(env, 1000):
        right.learn(trajectory)
        discount = np.where(trajectory.step.truncated, 0, trajectory.step.discount)
        wrong.learn(trajectory._replace(step=trajectory.step._replace(discount=discount)))
    table = "q" if "q" in right.tables else "value"
    assert np.allclose(right.tables[table], 50, rtol=0, atol=1)
    assert (wrong.tables[table] < 9).all()


# What is learned.


@pytest.mark.parametrize("name", PREDICTION)
def test_error_on_the_random_walk_falls_below_a_twentieth(name):
    env = random_walk.Config(num_envs=20).make()
    step_size = {"monte_carlo_prediction": 0.0, "td_lambda": 0.01}
    agent = make(name, env.spec, step_size=step_size.get(name, 0.02), initial_value=0.5)
    moments = play(env, agent, env.reset(0))
    first = agent.learn(collect(moments, 1))["train/rms_error"]
    assert first == pytest.approx(np.full(20, np.sqrt((4 + 1 + 0 + 1 + 4) / 5) / 6), abs=0.01)
    for _ in range(4000):
        metrics = agent.learn(collect(moments, 1))
    assert metrics["train/rms_error"].mean() < 0.05
    assert np.allclose(agent.tables["value"][:, 1:6].mean(0), np.arange(1, 6) / 6, atol=0.03)


def worth(agent: Any, model: Model, discount: float) -> Array:
    """Return how much less than the best each learner's greedy policy is worth at the start."""
    uniform = planning.equal_chances(model.action_mask)
    best = planning.optimal(model, discount).values
    lost = []
    for q in agent.tables["q"]:
        greedy = np.where(model.action_mask, q, -np.inf).argmax(1)
        policy = np.where(model.terminal[:, None], uniform, np.eye(model.num_actions)[greedy])
        lost.append(model.start @ (best - planning.policy_values(model, policy, discount)))
    return np.array(lost)


OPTIMISTIC = {"epsilon": 0.0, "step_size": 0.5}  # tries everything once by itself
SETTINGS: dict[str, dict[str, Any]] = {
    "q_learning": {"epsilon": 0.1, "step_size": 1.0},
    "dyna_q": {"epsilon": 0.1, "step_size": 1.0},
    "expected_sarsa": OPTIMISTIC,
    "sarsa": OPTIMISTIC,
    "sarsa_lambda": {"epsilon": 0.0, "step_size": 0.2, "trace_decay": 0.2},
    "double_q_learning": {"epsilon": 1.0, "step_size": 1.0},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("place", ["4x4", "cliff", "lake"])
def test_greedy_policy_becomes_the_best(name, place):
    """All of 4 learners, within 8000 steps each. Values start above what anything is worth, so that
    also those that learn of what they do, and not of the best, get to try everything.

    Double Q-learning has 40,000 and begins anywhere: on the cliff its tables need long to agree."""
    double = name == "double_q_learning"
    if place == "lake":
        env = gymnasium.Config(id="FrozenLake-v1", options={"is_slippery": False}).make()
        model = env.spec.model
        env = MarkovEnv(model, 4, max_steps=100)
    else:
        model = gridworld.Config(map=place).make().spec.model
        start = "anywhere" if double else "map"
        env = gridworld.Config(map=place, num_envs=4, max_steps=100, start=start).make()
    settings = {"discount": 0.95, "initial_value": float(place == "lake"), **SETTINGS[name]}
    agent = make(name, env.spec, **settings)
    assert (worth(agent, model, 0.95) > 0.1).all()
    moments = play(env, agent, env.reset(0))
    for _ in range(80 if double else 16):
        for _ in range(500):
            agent.learn(collect(moments, 1))
        if (worth(agent, model, 0.95) < 1e-9).all():
            return
    pytest.fail(f"still {worth(agent, model, 0.95)} below the best")


def test_settings_that_do_not_go_together_are_one_sentence():
    spec = world().spec
    with pytest.raises(Mistake, match=r"set agent\.update=online"):
        make("td_lambda", spec, traces="dutch", update="offline")
    with pytest.raises(Mistake, match="constant step size"):
        make("td_lambda", spec, traces="dutch", step_size=0.0)


def test_double_q_learning_is_not_drawn_to_what_is_good_by_chance():
    """Sutton & Barto 2018, example 6.7: from the start one may end with 0, or go where ten actions
    earn -0.1 on average, here +0.9 or -1.1. Q-learning goes there much more often than epsilon-
    greedily it should at first."""
    rows = [(0, 0, 2, 1.0, 0.0, True), (0, 1, 1, 1.0, 0.0, False)]
    rows += [(1, a, 2, 0.5, r, True) for a in range(10) for r in (0.9, -1.1)]
    env = MarkovEnv(Model.of(3, 10, rows, np.eye(3)[0]), 1000)
    share = {}
    for name in ("q_learning", "double_q_learning"):
        went = total = 0
        for step, decision in lived(env, make(name, env.spec), 300):
            begins = (step.observation[0] == 0) & ~step.done[0]
            total += begins.sum()
            went += (decision.action[0][begins] == 1).sum()
        share[name] = went / total
    assert share["q_learning"] > 0.25
    assert share["double_q_learning"] < share["q_learning"] - 0.1
