"""Laws of rlplay/policy_gradient.py and of the agents that learn by it: reinforce, a2c, ppo; and of
agents/pqn.py, that learns from rollouts too."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import a2c, ppo, pqn, reinforce
from envs import gymnasium as worlds
from envs import tictactoe
from rlplay import checkpoint, config
from rlplay.core import Array, Decision, Mistake, NonFinite, Spec, Step, Trajectory
from rlplay.nets import encoders, hardware
from rlplay.play import collect, play
from rlplay.rollout import Kept
from rlplay.train import Training

LINEAR = encoders.Config(name="mlp", hidden=())
PLAIN: dict[str, Any] = {"encoder": LINEAR, "hidden": 0, "device": "cpu"}
KINDS: dict[str, Any] = {"ppo": ppo.Config, "a2c": a2c.Config, "reinforce": reinforce.Config}
ONCE: dict[str, dict[str, Any]] = {  # one update on every trajectory of 6 moments in 2 envs
    "ppo": {"epochs": 1, "batch_size": 12, "horizon": 6},
    "a2c": {"horizon": 6},
    "reinforce": {"horizon": 6, "num_episodes": 1},
}
every_agent = pytest.mark.parametrize("name", KINDS)


class Endless(gymnasium.Env):
    """Pays 1 a step for ever, and always looks the same; or, with `clock`, shows the time."""

    action_space = spaces.Discrete(2)

    def __init__(self, clock: bool = False) -> None:
        self.clock = clock
        self.observation_space = spaces.Discrete(9 if clock else 1)

    def reset(self, *, seed=None, options=None):
        self.time = 0
        return 0, {}

    def step(self, action):
        self.time += 1
        return self.time if self.clock else 0, 1.0, False, False, {}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    gymnasium.register("Unending-v0", entry_point=Endless)
    yield
    del gymnasium.registry["Unending-v0"]


class Forgetful:
    """An env that reports every cut as a true end: the mistake that is often made."""

    def __init__(self, env: worlds.GymnasiumEnv) -> None:
        self.env, self.spec = env, env.spec

    def reset(self, seed: int) -> Step:
        return self.env.reset(seed)

    def step(self, action: Array) -> Step:
        step = self.env.step(action)
        terminated, never = step.done, np.zeros(len(step.done), bool)
        discount = 1 - terminated.astype(np.float32)
        return step._replace(terminated=terminated, truncated=never, discount=discount)


def vectors(num_envs: int = 2, actions: spaces.Space | None = None) -> Spec:
    return Spec(num_envs, spaces.Box(-1, 1, (3,)), actions or spaces.Discrete(3))


def make(name: str, spec: Spec, seed: int = 0, **changes: Any) -> Any:
    return KINDS[name](**(PLAIN | ONCE[name] | changes)).make(spec, seed)


def made(name: str, **changes: Any) -> Any:
    """Make an agent of the same settings, pqn too."""
    if name != "pqn":
        return make(name, vectors(), **changes)
    agent: Any = pqn.Config(**PLAIN, horizon=6, batch_size=12, **changes).make(vectors(), 0)
    agent.spec = vectors()
    return agent


def seen(spec: Spec, random: np.random.Generator, previous: Array | None) -> Step:
    """Return a moment of a world that is noise; an episode's end is followed by a beginning."""
    n, space = spec.num_envs, spec.observation_space
    over = random.random(n) < 0.25
    if previous is not None:
        over &= ~previous
    started = np.zeros(n, bool) if previous is None else previous
    terminated = over & (random.random(n) < 0.5)
    if space.dtype == np.uint8:
        observation = random.integers(256, size=(n, *space.shape), dtype=np.uint8)
    else:
        observation = random.normal(3, 2, size=(n, *space.shape)).astype(np.float32)
    mask = random.random((n, spec.num_actions)) < 0.6
    mask[:, :1] = True
    reward = np.where(started, 0, random.normal(size=n)).astype(np.float32)[:, None]
    return Step.at(
        observation,
        spec.num_actions,
        action_mask=mask,
        reward=reward,
        terminated=terminated,
        truncated=over & ~terminated,
    )


def noise(agent: Any, count: int, seed: int = 0) -> Trajectory:
    """Return a trajectory of the agent's own decisions in a world that is noise."""
    random = np.random.default_rng(seed)
    steps = [seen(agent.spec, random, None)]
    decisions = []
    for _ in range(count):
        decisions.append(agent.act(steps[-1]))
        steps.append(seen(agent.spec, random, steps[-1].done))
    columns: Any = zip(*steps, strict=True)
    notes = {name: np.stack([d.notes[name] for d in decisions]) for name in decisions[0].notes}
    return Trajectory(
        Step._make(None if column[0] is None else np.stack(column) for column in columns),
        Decision(np.stack([decision.action for decision in decisions]), notes),
    )


def weights(agent: Any) -> dict[str, Array]:
    return {name: array.copy() for name, array in agent.state_dict()["weights"].items()}


def same(left: dict[str, Array], right: dict[str, Array]) -> bool:
    assert left.keys() == right.keys()
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


# --- truncation and termination ----------------------------------------------------------------


def learned_value(name: str, clock: bool = False, forgetful: bool = False) -> float:
    """Return the value at the start of Unending that is learned from episodes of 8 steps."""
    env = worlds.Config("gymnasium", "Unending-v0", 2, max_steps=8, options={"clock": clock}).make()
    settings = {
        "discount": 0.98,
        "learning_rate": 0.5,
        "schedule_steps": 250 * 18,
        "horizon": 9,
        "max_grad_norm": 100.0,
        **({"batch_size": 18, "epochs": 1} if name == "ppo" else {}),
    }
    if name == "pqn":
        agent: Any = pqn.Config(**PLAIN, **settings, batch_size=18, epochs=1).make(env.spec, 0)
    else:
        agent = make(name, env.spec, **settings)
    first = env.reset(0)
    moments = play(Forgetful(env) if forgetful else env, agent, first)  # type: ignore[arg-type]
    for _ in range(250):
        agent.learn(collect(moments, agent.horizon))
    notes = agent.act(first, explore=False).notes
    return float(notes["q_values" if name == "pqn" else "value"].max())


@pytest.mark.parametrize("name", [*KINDS, "pqn"])
def test_truncation_bootstraps_so_an_endless_world_is_worth_50(name):
    assert learned_value(name) == pytest.approx(1 / (1 - 0.98), abs=1)


@pytest.mark.parametrize("name", [*KINDS, "pqn"])
def test_termination_does_not_bootstrap(name):
    """The negative control: with cuts taken for ends, the same world is worth 8 steps of it."""
    value = learned_value(name, clock=True, forgetful=True)
    assert value == pytest.approx((1 - 0.98**8) / (1 - 0.98), abs=0.5)  # 7.46


# --- what it learns, worked out by hand --------------------------------------------------------

RATE, EPS, MAX_NORM = 0.01, 1e-5, 0.5
BY_HAND: dict[str, Any] = {
    "learning_rate": RATE,
    "learning_rate_end": RATE,
    "adam_eps": EPS,
    "max_grad_norm": MAX_NORM,
    "discount": 0.9,
    "entropy_weight": 0.05,
    "entropy_weight_end": 0.05,
}


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def advantages(trajectory: Trajectory, values: Array, discount: float, trace: float) -> Array:
    """Return advantages [T, N] by their definition, a sum over what is still to come."""
    step, length = trajectory.step, len(trajectory.decision.action)
    found = np.zeros((length, len(values[0])))
    for t, i in np.ndindex(found.shape):
        weight = 1.0
        for k in range(t, length):
            if step.done[k, i]:
                break
            worth = discount * step.discount[k + 1, i]
            error = step.reward[k + 1, i, 0] + worth * values[k + 1, i] - values[k, i]
            found[t, i] += weight * error
            weight *= worth * trace
    return found


@pytest.mark.parametrize("value_clip_range", [0.0, 0.02])
def test_one_ppo_update_equals_a_hand_computed_one(value_clip_range):
    trace, clip_range, value_weight = 0.8, 0.2, 0.4
    settings = {**BY_HAND, "trace": trace, "clip_range": clip_range, "clip_range_end": clip_range}
    settings |= {"value_weight": value_weight, "value_clip_range": value_clip_range}
    agent = make("ppo", vectors(), **settings)
    trajectory = noise(agent, 6)
    step, decision = trajectory
    # As if another policy, that valued things otherwise, had acted: so that something is clipped.
    stale = np.random.default_rng(5)
    old = decision.notes["log_prob"] + stale.normal(0, 0.3, size=(6, 2)).astype(np.float32)
    old_value = decision.notes["value"] + stale.normal(0, 0.1, size=(6, 2)).astype(np.float32)
    notes = decision.notes | {"log_prob": old, "value": old_value}
    before = {name: array.astype(np.float64) for name, array in weights(agent).items()}
    matrix, bias = before["policy.layer.weight"], before["policy.layer.bias"]
    line, height = before["value.layer.weight"][0], before["value.layer.bias"][0]
    values = np.concatenate([old_value, (step.observation[-1] @ line + height)[None]])
    advantage = advantages(trajectory, values, 0.9, trace)
    live = ~step.done[:-1]
    rows = list(zip(*np.nonzero(live), strict=True))
    away = advantage - advantage[live].mean()
    scaled = away / (np.sqrt((away[live] ** 2).mean()) + 1e-8)
    gradient = {name: np.zeros_like(array) for name, array in before.items()}
    clipped, loss = 0, 0.0
    for t, i in rows:
        x, a = step.observation[t, i].astype(np.float64), decision.action[t, i]
        legal = step.action_mask[t, i]
        probs = softmax(np.where(legal, matrix @ x + bias, -np.inf))
        ratio, gain = probs[a] / np.exp(old[t, i]), scaled[t, i]
        # The clipped objective has no slope where moving on would pay beyond the range.
        flat = ratio > 1 + clip_range if gain > 0 else ratio < 1 - clip_range
        clipped += flat
        loss -= min(ratio * gain, np.clip(ratio, 1 - clip_range, 1 + clip_range) * gain)
        by_logit = np.zeros(3) if flat else -gain * ratio * (np.eye(3)[a] - probs)
        logs = np.log(np.where(legal, probs, 1))
        entropy = -(probs * logs).sum()
        loss -= 0.05 * entropy
        by_logit += 0.05 * probs * (logs + entropy)
        gradient["policy.layer.weight"] += np.outer(by_logit, x)
        gradient["policy.layer.bias"] += by_logit
        value, target = x @ line + height, old_value[t, i] + advantage[t, i]
        slope, error = 2 * (value - target), (value - target) ** 2
        if value_clip_range:
            moved = np.clip(value - old_value[t, i], -value_clip_range, value_clip_range)
            near = old_value[t, i] + moved
            if (near - target) ** 2 > error:
                error = (near - target) ** 2
                slope = slope if abs(value - old_value[t, i]) < value_clip_range else 0
        loss += value_weight * error
        gradient["value.layer.weight"] += value_weight * slope * x
        gradient["value.layer.bias"] += value_weight * slope
    assert 0 < clipped < len(rows) < 12, "nothing, or everything, was clipped or over"
    gradient = {name: array / len(rows) for name, array in gradient.items()}
    norm = np.sqrt(sum((array**2).sum() for array in gradient.values()))
    assert norm > MAX_NORM
    metrics = agent.learn(Trajectory(step, Decision(decision.action, notes)))
    assert metrics["train/loss"] == pytest.approx(loss / len(rows), rel=1e-4)
    assert metrics["train/grad_norm"] == pytest.approx(norm, rel=1e-4)
    assert metrics["train/n_updates"] == 1
    after = weights(agent)
    for name, array in gradient.items():
        g = array * MAX_NORM / norm
        expected = before[name] - RATE * g / (np.abs(g) + EPS)  # Adam's first step
        assert after[name] == pytest.approx(expected, abs=2e-6), name


def test_one_a2c_update_equals_a_hand_computed_one():
    agent = make("a2c", vectors(), **BY_HAND)
    trajectory = noise(agent, 6)
    step, decision = trajectory
    before = {name: array.astype(np.float64) for name, array in weights(agent).items()}
    matrix, bias = before["policy.layer.weight"], before["policy.layer.bias"]
    line, height = before["value.layer.weight"][0], before["value.layer.bias"][0]
    values = step.observation @ line + height
    advantage = advantages(trajectory, values, 0.9, 1.0)
    rows = list(zip(*np.nonzero(~step.done[:-1]), strict=True))
    by_bias, by_height = np.zeros(3), 0.0
    for t, i in rows:
        x, a, legal = step.observation[t, i], decision.action[t, i], step.action_mask[t, i]
        probs = softmax(np.where(legal, matrix @ x + bias, -np.inf))
        logs = np.log(np.where(legal, probs, 1))
        by_bias -= advantage[t, i] * (np.eye(3)[a] - probs)
        by_bias += 0.05 * probs * (logs - (probs * logs).sum())
        by_height -= advantage[t, i]  # half of twice the error
    metrics = agent.learn(trajectory)
    scale = min(1, MAX_NORM / metrics["train/grad_norm"])
    for name, sums in (("policy.layer.bias", by_bias), ("value.layer.bias", by_height)):
        g = sums / len(rows) * scale
        expected = before[name] - RATE * g / (np.abs(g) + EPS)
        assert weights(agent)[name] == pytest.approx(expected, abs=2e-6), name


@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_follows_the_returns_of_whole_episodes(baseline):
    spec = vectors(1)
    agent = make("reinforce", spec, **BY_HAND, baseline=baseline, horizon=4)
    agent.settings = dataclasses.replace(agent.settings, discount=0.5)
    step = Step.at(np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]], 3)
    decisions = [agent.act(Step.at(row[None], 3)) for row in step.observation[:-1]]
    reward = np.float32([0, 1, 2, 4, 100])[:, None, None]
    terminated = np.array([False, False, False, True, False])[:, None]
    steps = [
        Step.at(row[None], 3, reward=r, terminated=over)
        for row, r, over in zip(step.observation, reward, terminated, strict=True)
    ]
    moments: Any = zip(*steps, strict=True)
    stacked = Step._make(None if leaf[0] is None else np.stack(leaf) for leaf in moments)
    notes = {name: np.stack([d.notes[name] for d in decisions]) for name in decisions[0].notes}
    action = np.stack([d.action for d in decisions])
    before = weights(agent)
    metrics = agent.learn(Trajectory(stacked, Decision(action, notes)))
    returns = [1 + 0.5 * (2 + 0.5 * 4), 2 + 0.5 * 4, 4.0]
    value = np.zeros(3)
    if baseline:
        value = before["value.layer.weight"][0] + before["value.layer.bias"]
        error = float(np.square(returns - value).mean())
        assert metrics["train/value_loss"] == pytest.approx(error, rel=1e-5)
    gain = np.mean((returns - value) * notes["log_prob"][:3, 0])
    assert metrics["train/policy_gradient_loss"] == pytest.approx(-gain, rel=1e-5)
    assert ("value.layer.weight" in before) == baseline


def test_reinforce_learns_once_from_every_decision_of_an_episode_that_is_over(monkeypatch):
    agent = make("reinforce", vectors(3), num_episodes=4, horizon=5)
    learned: list[tuple[int, ...]] = []
    update = agent.update

    def noting(trajectory: Trajectory, whole: Array) -> dict[str, float]:
        rows = whole & ~trajectory.step.done[:-1]
        learned.extend(map(tuple, trajectory.step.observation[:-1][rows].tolist()))
        return update(trajectory, whole)

    monkeypatch.setattr(agent, "update", noting)
    long = noise(agent, 200)
    for t in range(0, 200, 5):
        leaves: Any = long.step
        part = Step._make(None if leaf is None else leaf[t : t + 6] for leaf in leaves)
        notes = {name: note[t : t + 5] for name, note in long.decision.notes.items()}
        agent.learn(Trajectory(part, Decision(long.decision.action[t : t + 5], notes)))
    over = long.step.done
    ended = np.maximum.accumulate(over[1:][::-1])[::-1] & ~over[:-1]  # in an episode that ended
    expected = [tuple(row) for row in long.step.observation[:-1][ended].tolist()]
    assert len(set(learned)) == len(learned), "a decision was learned from twice"
    assert set(learned) <= set(expected)
    assert len(expected) - len(learned) < 4 * 15, "whole episodes were left out"
    assert agent.descent.num_updates > 10
    assert sum(len(part.decision.action) for part in agent.waiting) < 60, (
        "what was learned from is kept"
    )


def test_pqn_learns_towards_lambda_returns_of_the_best_legal_action():
    settings = {"horizon": 6, "batch_size": 12, "epochs": 1, "discount": 0.9, "trace": 0.7}
    agent = pqn.Config(**PLAIN, **settings, epsilon_start=0.5).make(vectors(), 0)
    agent.spec = vectors()  # type: ignore[attr-defined]
    trajectory = noise(agent, 6)
    step, action = trajectory.step, trajectory.decision.action
    last = agent.act(Step.at(step.observation[-1], 3), explore=False).notes["q_values"]
    q_values = np.concatenate([trajectory.decision.notes["q_values"], last[None]])
    best = np.where(step.action_mask, q_values, -np.inf).max(2)
    returns = best[:-1] + advantages(trajectory, best, 0.9, 0.7)
    chosen = np.take_along_axis(q_values[:-1], action[..., None], 2)[..., 0]
    errors = ((chosen - returns) ** 2)[~step.done[:-1]]
    assert 0 < len(errors) < 12
    assert agent.learn(trajectory)["train/loss"] == pytest.approx(0.5 * errors.mean(), rel=1e-4)
    illegal = q_values.max(2)  # negative control
    wrong = illegal[:-1] + advantages(trajectory, illegal, 0.9, 0.7)
    wrong_errors = ((chosen - wrong) ** 2)[~step.done[:-1]]
    assert wrong_errors.mean() != pytest.approx(errors.mean(), rel=1e-3)


# --- what has no weight ------------------------------------------------------------------------


@every_agent
def test_ignored_actions_have_no_weight(name):
    agent = make(name, vectors())
    trajectory = noise(agent, 6, seed=18)
    rows = trajectory.step.done[:-1]
    assert rows[1:].any()
    state = copy.deepcopy(agent.state_dict())

    def learned(touched: Array) -> dict[str, Array]:
        other = make(name, vectors())
        other.load_state_dict(state)
        action, notes = copy.deepcopy(tuple(trajectory.decision))
        first = trajectory.step.action_mask[:-1].argmax(2)
        last = 2 - trajectory.step.action_mask[:-1, :, ::-1].argmax(2)
        action[touched] = np.where(action == first, last, first)[touched]
        notes["log_prob"][touched] -= 0.3
        other.learn(Trajectory(trajectory.step, Decision(action, notes)))
        return weights(other)

    assert same(learned(rows), learned(np.zeros_like(rows)))
    assert not same(learned(~rows), learned(np.zeros_like(rows)))  # negative control


@pytest.mark.parametrize("mask", [False, True])
def test_masked_actions_are_never_drawn(mask):
    spec = vectors(500, spaces.Discrete(5))
    agent = make("ppo", spec, horizon=1, batch_size=500)
    random = np.random.default_rng(0)
    legal = random.random((500, 5)) < 0.3
    legal[:, 4] = True
    drawn = []
    for t in range(20):
        step = seen(spec, np.random.default_rng(t), None)
        step = step._replace(action_mask=legal if mask else np.ones_like(legal))
        drawn += [agent.act(step).action, agent.act(step, explore=False).action]
    assert all(legal[np.arange(500), action].all() for action in drawn) == mask


# --- what acted is what is learned from --------------------------------------------------------

ACTIONS: dict[str, tuple[spaces.Space, dict[str, Any]]] = {
    "discrete": (spaces.Discrete(4), {}),
    "multi-discrete": (spaces.MultiDiscrete([2, 3, 4]), {}),
    "table": (spaces.MultiDiscrete([[2, 3], [4, 1]]), {}),
    "gaussian": (spaces.Box(np.float32([-2, 0]), np.float32([2, 10])), {}),
    "by state": (spaces.Box(-1, 1, (2, 2)), {"deviation_by_state": True}),
    "squashed": (spaces.Box(-3, 1, (3,)), {"squashed": True, "deviation_by_state": True}),
}


@pytest.mark.parametrize("kind", ACTIONS)
def test_policy_that_has_not_moved_is_the_one_that_acted(kind):
    actions, changes = ACTIONS[kind]
    changes = {**changes, "normalize_observations": True, "normalize_rewards": True}
    agent = make("ppo", vectors(2, actions), **changes)
    for seed in range(3):
        agent.learn(noise(agent, 6, seed))
    agent.learning_rate = lambda steps: 0.0
    metrics = agent.learn(noise(agent, 6, seed=9))
    assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-6)
    assert metrics["train/clip_fraction"] == 0
    assert metrics["train/policy_gradient_loss"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", ACTIONS)
@every_agent
def test_actions_of_every_kind_are_in_their_space(kind, name):
    actions, changes = ACTIONS[kind]
    agent = make(name, vectors(2, actions), **changes, learning_rate=0.1)
    for seed in range(4):
        for explore in (False, True):
            step = seen(agent.spec, np.random.default_rng(seed), None)
            decision = agent.act(step, explore)
            assert decision.action.shape == (2, *actions.shape)
            assert all(actions.contains(one) for one in decision.action)
            assert all(np.isfinite(note).all() for note in decision.notes.values())
        metrics = agent.learn(noise(agent, 6, seed))
        assert all(np.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("squashed", [False, True])
def test_continuous_actions_are_scaled_to_their_bounds(squashed):
    box = spaces.Box(np.float32([-2, 0]), np.float32([2, 10]))
    agent = make("ppo", vectors(2, box), squashed=squashed)
    middle = agent.act(seen(agent.spec, np.random.default_rng(0), None), explore=False).action
    assert middle == pytest.approx(np.float32([[0, 5], [0, 5]]), abs=1)
    with torch.no_grad():
        agent.network.policy.layer.bias.copy_(torch.tensor([50.0, -50.0]))
    ends = agent.act(seen(agent.spec, np.random.default_rng(0), None)).action
    assert ends.tolist() == [[2, 0], [2, 0]]


@every_agent
def test_better_action_becomes_likelier(name):
    spec = vectors(8)
    agent = make(name, spec, learning_rate=0.05, **({"batch_size": 48} if name == "ppo" else {}))
    constant = np.ones((8, 3), np.float32)
    for _ in range(30):
        steps, decisions = [Step.at(constant, 3)], []
        for t in range(6):
            decisions.append(agent.act(steps[-1]))
            reward = (decisions[-1].action == 1).astype(np.float32)[:, None]
            reward = reward * ~steps[-1].done[:, None]
            steps.append(Step.at(constant, 3, reward=reward, terminated=np.full(8, t % 2 == 0)))
        columns: Any = zip(*steps, strict=True)
        notes = {k: np.stack([d.notes[k] for d in decisions]) for k in decisions[0].notes}
        action = np.stack([d.action for d in decisions])
        step = Step._make(None if column[0] is None else np.stack(column) for column in columns)
        agent.learn(Trajectory(step, Decision(action, notes)))
    policy = agent.act(Step.at(constant, 3), explore=False).notes["policy"]
    assert (policy[:, 1] > 0.8).all()


# --- games of two ------------------------------------------------------------------------------


def test_opponents_value_is_the_players_loss():
    env = tictactoe.Config(num_envs=4).make()
    agent = make("ppo", env.spec, horizon=20, batch_size=80, discount=0.9)
    trajectory = collect(play(env, agent, env.reset(0)), 20)
    rollout = agent.rollout(trajectory)
    step = trajectory.step
    turned = step.player[1:] != step.player[:-1]
    ends = step.terminated[1:]
    discount = rollout.discount.numpy()
    assert (discount[turned & ~ends] < 0).all()
    assert (discount[~turned & ~ends] > 0).all()
    assert not discount[ends].any()
    won = ends & (step.reward[1:].max(2) == 1)
    assert (rollout.reward.numpy()[won] == 1).all(), "only who has just moved can have won"
    assert won.any()


def test_game_that_is_not_zero_sum_is_refused():
    spec = dataclasses.replace(vectors(), num_players=2)
    agent = make("ppo", spec)
    trajectory = noise(agent, 6)
    both = np.repeat(trajectory.step.reward, 2, axis=2)
    with pytest.raises(Mistake, match="must be the other's loss"):
        agent.learn(trajectory._replace(step=trajectory.step._replace(reward=both)))
    opposed = both * np.float32([1, -1])
    agent.learn(trajectory._replace(step=trajectory.step._replace(reward=opposed)))


# --- settings ----------------------------------------------------------------------------------


def test_batch_that_does_not_divide_the_rollout_is_refused():
    with pytest.raises(Mistake, match=r"agent\.batch_size 5 .* 12 .* agent\.batch_size=4") as seen:
        make("ppo", vectors(), batch_size=5)
    assert len(str(seen.value).splitlines()) == 1
    make("ppo", vectors(), batch_size=4)
    ppo.Config(**PLAIN, batch_size=5).make(vectors(), 0, learns=False)  # it only plays


def test_epochs_and_batches_make_updates_and_a_moved_policy_stops_them():
    agent = make("ppo", vectors(), epochs=3, batch_size=4, learning_rate=0.05)
    agent.learn(noise(agent, 6))
    assert agent.descent.num_updates == 9
    careful = make("ppo", vectors(), epochs=3, batch_size=4, learning_rate=0.05, max_kl=1e-6)
    careful.learn(noise(careful, 6))
    assert careful.descent.num_updates == 2  # before the first, it has not moved


def test_schedules_end_where_they_should():
    settings = {"schedule_steps": 24, "learning_rate_end": 0.0, "clip_range": 0.2}
    agent = make("ppo", vectors(), learning_rate=0.1, entropy_weight_end=0.5, **settings)
    rates = [agent.learn(noise(agent, 6, seed))["train/learning_rate"] for seed in range(3)]
    assert rates == pytest.approx([0.1, 0.05, 0])  # as they stood where each rollout began
    assert agent.clip_range(agent.num_seen) == 0
    assert agent.entropy_weight(agent.num_seen) == 0.5
    before = weights(agent)
    agent.learn(noise(agent, 6))
    assert same(before, weights(agent))


@pytest.mark.parametrize("name", ["ppo", "a2c", "pqn"])
def test_schedules_last_as_long_as_the_training_and_its_last_rollout_is_learned_from(name):
    whole = config.load("cartpole/ppo", ["--agent.name", name, "--num-steps=100"])
    small = dataclasses.replace(
        whole.agent, encoder=LINEAR, hidden=0, horizon=4, learning_rate=0.1,
        **({} if name == "a2c" else {"batch_size": 32}),
    )  # fmt: skip
    training = Training(dataclasses.replace(whole, agent=small), print)
    moments, rates = training.stream(), []
    for before in range(0, 100, 32):
        held = weights(training.agent)
        rates.append(training.agent.learn(collect(moments, 4))["train/learning_rate"])
        assert rates[-1] == pytest.approx(0.1 * (1 - before / 100))
        assert not same(held, weights(training.agent))
    short = dataclasses.replace(small, schedule_steps=99)
    with pytest.raises(Mistake, match=r"set agent\.schedule_steps=0"):
        Training(dataclasses.replace(whole, agent=short), print)
    Training(dataclasses.replace(whole, agent=dataclasses.replace(short, learning_rate_end=0.01)),
             print)  # fmt: skip


def test_episode_that_does_not_end_is_a_mistake_of_reinforce_and_not_of_long_ones():
    env = worlds.Config("gymnasium", "Unending-v0", 2, max_steps=29).make()
    cut = make("reinforce", env.spec, horizon=10, num_episodes=20, longest_episode=30)
    moments = play(env, cut, env.reset(0))
    for _ in range(9):
        cut.learn(collect(moments, 10))
    env = worlds.Config("gymnasium", "Unending-v0", 2).make()
    endless = make("reinforce", env.spec, horizon=10, num_episodes=20, longest_episode=30)
    moments = play(env, endless, env.reset(0))
    for _ in range(3):
        endless.learn(collect(moments, 10))
    with pytest.raises(Mistake, match=r"not ended after 30 agent steps: set env\.max_steps"):
        endless.learn(collect(moments, 10))


@every_agent
def test_what_cannot_be_learned_is_refused_in_one_sentence(name):
    unbounded = vectors(2, spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(Mistake, match="bounded"):
        make(name, unbounded)
    with pytest.raises(Mistake, match="3 players"):
        make(name, dataclasses.replace(vectors(), num_players=3))
    discrete = dataclasses.replace(vectors(), observation_space=spaces.Discrete(4))
    with pytest.raises(Mistake, match=r"agent\.normalize_observations"):
        make(name, discrete, normalize_observations=True)
    with pytest.raises(Mistake, match="cannot choose"):
        make(name, vectors(2, spaces.Text(5)))


@every_agent
@pytest.mark.parametrize("poison", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_what_is_no_number_stops_learning_and_changes_nothing(name, poison, where):
    agent = make(name, vectors(), normalize_rewards=True)
    agent.learn(noise(agent, 6))
    trajectory = noise(agent, 6, seed=1)
    bad = getattr(trajectory.step, where).copy()
    bad[2:4] = poison
    before = copy.deepcopy(agent.state_dict())
    with pytest.raises(NonFinite, match="not finite") as caught:
        agent.learn(trajectory._replace(step=trajectory.step._replace(**{where: bad})))
    assert not np.isfinite(caught.value.batch[where]).all()
    after = agent.state_dict()
    assert same(before["weights"], after["weights"])
    for parameter, moments in before["agent"]["optimizer"].items():
        assert same(moments, after["agent"]["optimizer"][parameter])


# --- normalizing, bfloat16, saving -------------------------------------------------------------


def test_normalizers_learn_where_it_learns_and_nowhere_else():
    agent = make("ppo", vectors(), normalize_observations=True, normalize_rewards=True)
    trajectory = noise(agent, 6)
    assert agent.observations.count == 0
    agent.learn(trajectory)
    flat = trajectory.step.observation[:-1].reshape(12, 3)
    assert agent.observations.count == 12
    assert agent.observations.mean == pytest.approx(flat.mean(0), rel=1e-5)
    before = copy.deepcopy(dict(agent.state_dict()["agent"]["observations"]))
    for explore in (False, True):
        agent.act(seen(agent.spec, np.random.default_rng(0), None), explore)
    after = agent.state_dict()["agent"]["observations"]
    assert all(np.array_equal(before[name], after[name]) for name in before)


@every_agent
def test_pictures_are_computed_in_bfloat16_heads_and_masters_in_float32(name):
    spec = Spec(2, spaces.Box(0, 255, (4, 36, 36), np.uint8), spaces.Discrete(3))
    encoder = encoders.Config(name="nature", width=0.1)
    changes = {"encoder": encoder, "hidden": 8, "precision": "bfloat16", "shared": False}
    agent = make(name, spec, **changes)
    network = agent.network
    assert {p.dtype for p in network.trunk.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in network.value_trunk.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in network.policy.parameters()} == {torch.float32}
    assert {p.dtype for p in network.value.parameters()} == {torch.float32}
    before = weights(agent)
    assert {array.dtype for array in before.values()} == {np.dtype(np.float32)}
    agent.learn(noise(agent, 6))
    assert agent.descent.num_updates == 1
    assert all(not np.array_equal(before[key], array) for key, array in weights(agent).items())


# --- what is for a GPU, on a CPU ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo", "a2c", "pqn"])
def test_what_was_moved_to_act_is_learned_from_and_not_moved_again(name, monkeypatch):
    def learned(keeps: bool, stranger: bool = False) -> tuple[dict[str, Array], list[int]]:
        agent = made(name)
        agent.kept = Kept(12 if keeps else 0)
        sizes: list[int] = []
        moved = hardware.moved

        def counted(array: Array, device: torch.device) -> torch.Tensor:
            if np.shares_memory(array, trajectory.step.observation):
                sizes.append(len(array))
            return moved(array, device)

        for seed in range(3):
            trajectory = noise(agent, 6, seed)
            if stranger:  # another process has acted
                agent.kept = Kept(12)
            with monkeypatch.context() as patch:
                patch.setattr(hardware, "moved", counted)
                agent.learn(trajectory)
        return weights(agent), sizes

    plain, moves = learned(keeps=False)
    assert moves.count(6) == 3
    kept, moves = learned(keeps=True)
    assert moves.count(6) == 0
    assert same(kept, plain)
    strange, moves = learned(keeps=True, stranger=True)
    assert moves.count(6) == 3
    assert same(strange, plain)


def test_no_more_is_kept_than_is_needed():
    kept = Kept(3)
    added = [kept.add(torch.full((2,), float(i)))["moment"] for i in range(5)]
    early, late = ({"moment": np.stack(part)} for part in (added[:3], added[3:]))
    assert kept.take(early) is None
    assert kept.take(late).tolist() == [[3, 3], [4, 4]]
    assert kept.take(late) is None
    assert not kept.moments
    assert Kept(0).add(torch.zeros(2)) == {}
    assert kept.take({}) is None


@pytest.mark.parametrize("name", ["a2c", "pqn"])
def test_compiled_network_is_the_same_network(name, monkeypatch):
    """By a backend that makes no kernels, which would take a minute."""
    calls, compile = [], torch.nn.Module.compile

    def plainly(network: torch.nn.Module, **settings: Any) -> None:
        calls.append(settings)
        compile(network, backend="eager", dynamic=settings["dynamic"])

    monkeypatch.setattr(torch.nn.Module, "compile", plainly)
    found = []
    for setting in ("off", "default"):
        agent = made(name, compile=setting)
        for seed in range(2):
            agent.learn(noise(agent.actor(), 6, seed))
        found.append(weights(agent))
    assert len(calls) == 2, "the learner's and the actor's"
    assert same(*found)


@every_agent
@pytest.mark.parametrize("kind", ["discrete", "squashed"])
def test_loaded_agent_goes_on_bitwise(name, kind, tmp_path):
    actions, changes = ACTIONS[kind]
    changes = {**changes, "normalize_observations": True, "normalize_rewards": True}
    agent, other, fresh = (make(name, vectors(2, actions), i, **changes) for i in (0, 1, 1))
    if name == "reinforce":
        agent.config = other.config = dataclasses.replace(agent.config, num_episodes=3)

    def go_on(agent: Any, seeds: range) -> list[Any]:
        trail = []
        for seed in seeds:
            trajectory = noise(agent, 6, seed)
            trail += [trajectory.decision.action.tolist(), agent.learn(trajectory)]
        return trail

    go_on(agent, range(5))
    checkpoint.save(tmp_path, "1", agent.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path / "1"))
    assert go_on(agent, range(5, 10)) == go_on(other, range(5, 10))
    assert same(weights(agent), weights(other))
    assert go_on(fresh, range(5, 10)) != go_on(other, range(5, 10))  # negative control
