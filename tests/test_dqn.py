"""Laws of agents/dqn.py: what it learns towards, how it explores, and what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import agents.dqn
from agents.dqn import DQN, Config
from envs import gymnasium as worlds
from rlplay import checkpoint
from rlplay.core import Array, Decision, Mistake, NonFinite, Spec, Step, Trajectory
from rlplay.nets import encoders, hardware
from rlplay.play import collect, play
from rlplay.replay import Replay

LINEAR = encoders.Config(name="mlp", hidden=())
PICTURES = spaces.Box(0, 255, (4, 36, 36), np.uint8)


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
    gymnasium.register("Endless-v0", entry_point=Endless)
    yield
    del gymnasium.registry["Endless-v0"]


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


def config(**changes: Any) -> Config:
    """Return a small DQN for vectors."""
    settings = {
        "encoder": encoders.Config(name="mlp", hidden=(8,)),
        "hidden": 0,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "learning_starts": 8,
        "replay_size": 200,
        "device": "cpu",
    }
    return Config(**(settings | changes))


def vectors(num_envs: int = 2, num_actions: int = 3) -> Spec:
    return Spec(num_envs, spaces.Box(-1, 1, (3,)), spaces.Discrete(num_actions))


def steps(spec: Spec, count: int, seed: int = 0, **fields: Array) -> Step:
    """Return `count` moments [count, N, ...] of a world that is noise."""
    random, n = np.random.default_rng(seed), spec.num_envs
    shape = (count, n, *(spec.observation_space.shape or ()))
    if spec.observation_space.dtype == np.uint8:
        seen = random.integers(256, size=shape, dtype=np.uint8)
    else:
        seen = random.normal(size=shape).astype(np.float32)
    reward = random.normal(size=(count, n, 1)).astype(np.float32)
    over = random.random((count, n)) < 0.1
    step = Step(
        observation=seen,
        action_mask=np.ones((count, n, spec.num_actions), bool),
        player=np.zeros((count, n), np.int64),
        reward=reward,
        score=reward,
        terminated=over,
        truncated=np.zeros_like(over),
        discount=1 - over.astype(np.float32),
    )
    return step._replace(**fields)


def noise(spec: Spec, count: int, seed: int = 0, **fields: Array) -> Trajectory:
    """Return a trajectory of `count` random decisions in a world that is noise."""
    random = np.random.default_rng(seed + 1000)
    action = random.integers(spec.num_actions, size=(count, spec.num_envs))
    return Trajectory(steps(spec, count + 1, seed, **fields), Decision(action, {}))


def at(trajectory: Trajectory, t: int) -> Step:
    return Step(*(None if leaf is None else leaf[t] for leaf in trajectory.step))


def weights(agent: DQN) -> dict[str, Array]:
    return {name: array.copy() for name, array in agent.state_dict()["weights"].items()}


def same(left: dict[str, Array], right: dict[str, Array]) -> bool:
    assert left.keys() == right.keys()
    return all(left[name].tobytes() == right[name].tobytes() for name in left)


# --- truncation and termination ----------------------------------------------------------------


def learned_value(clock: bool = False, forgetful: bool = False, **changes: Any) -> float:
    """Return the value at the start of Endless that DQN learns from episodes of 8 steps."""
    settings = {
        "encoder": LINEAR,
        "learning_rate": 0.3,
        "discount": 0.98,
        "batch_size": 32,
        "steps_per_update": 4,
        "target_every": 4,
        "learning_starts": 64,
        "replay_size": 1000,
    }
    env = worlds.Config("gymnasium", "Endless-v0", 4, max_steps=8, options={"clock": clock}).make()
    agent = config(**(settings | changes)).make(env.spec, seed=0)
    first = env.reset(0)
    moments = play(Forgetful(env) if forgetful else env, agent, first)  # type: ignore[arg-type]
    for _ in range(500):
        agent.learn(collect(moments, agent.horizon))
    return float(agent.act(first, explore=False).notes["q_values"].max())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_step": 3},
        {"double": True, "dueling": True, "prioritized": True},
        {"encoder": encoders.Config(name="mlp", hidden=(16,)), "learning_rate": 0.02},
    ],
    ids=["plain", "3 steps", "double, dueling, prioritized", "hidden layer"],
)
def test_truncation_bootstraps_so_an_endless_world_is_worth_50(changes):
    assert learned_value(**changes) == pytest.approx(1 / (1 - 0.98), abs=1)


def test_termination_does_not_bootstrap():
    """The negative control: with cuts taken for ends, the same world is worth 8 steps of it."""
    value = learned_value(clock=True, forgetful=True, learning_rate=0.05)
    assert value == pytest.approx((1 - 0.98**8) / (1 - 0.98), abs=0.5)  # 7.46
    assert abs(learned_value(forgetful=True) - 50) > 2


# --- acting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("explore", [False, True])
def test_actions_are_legal_whatever_the_mask(explore):
    spec = vectors(num_envs=200, num_actions=5)
    agent = config(epsilon_start=0.5, epsilon_end=0.5, replay_size=400).make(spec, 0)
    random = np.random.default_rng(0)
    free_choice = agent.act(at(noise(spec, 1), 0), explore=False).action
    for t in range(20):
        mask = random.random((200, 5)) < 0.3
        mask[np.arange(200), random.integers(5, size=200)] = True
        step = at(noise(spec, 1, seed=t), 0)._replace(action_mask=mask)
        decision = agent.act(step, explore)
        assert decision.action.dtype == np.int64
        assert mask[np.arange(200), decision.action].all()
    # Negative control: without its mask it would have taken illegal ones.
    assert not mask[np.arange(200), free_choice].all()


def test_greedy_action_is_the_legal_one_of_highest_value():
    spec = vectors(num_envs=50, num_actions=4)
    agent = config().make(spec, 0)
    mask = np.tile([True, False, True, True], (50, 1))
    decision = agent.act(at(noise(spec, 1), 0)._replace(action_mask=mask), explore=False)
    q_values = decision.notes["q_values"]
    assert q_values.shape == (50, 4)
    legal = q_values[:, [0, 2, 3]]
    assert np.array_equal(q_values[np.arange(50), decision.action], legal.max(1))
    assert (q_values.argmax(1) == 1).any(), "the mask never mattered"


def test_explored_actions_are_uniform_over_the_legal_ones():
    spec = vectors(num_envs=6000, num_actions=4)
    agent = config(epsilon_start=1.0, replay_size=6000 * 2).make(spec, 0)
    mask = np.tile([True, False, True, True], (6000, 1))
    action = agent.act(at(noise(spec, 1), 0)._replace(action_mask=mask)).action
    counts = np.bincount(action, minlength=4)
    assert counts[1] == 0
    assert counts[[0, 2, 3]] == pytest.approx(2000, abs=5 * np.sqrt(6000 * 2 / 9))


def test_share_of_explored_actions_follows_the_schedule():
    spec = vectors(num_envs=5000, num_actions=2)
    schedule = {"epsilon_start": 0.8, "epsilon_end": 0.2, "epsilon_steps": 20_000}
    agent = config(learning_starts=10**6, replay_size=10**6, **schedule).make(spec, 0)
    step = at(noise(spec, 1), 0)
    greedy = agent.act(step, explore=False).action
    for expected in (0.8, 0.65, 0.5, 0.35, 0.2, 0.2):
        share = 2 * (agent.act(step).action != greedy).mean()  # half of what is random is greedy
        assert share == pytest.approx(expected, abs=0.06)
        metrics = agent.learn(noise(spec, 1))
        following = max(0.2, 0.8 - 0.6 * agent.num_seen / 20_000)
        assert metrics["rollout/exploration_rate"] == pytest.approx(following)


def test_playing_without_exploring_uses_up_no_randomness():
    agent = config().make(vectors(), 0)
    agent.learn(noise(vectors(), 20))

    def states() -> list[Any]:
        torches = [agent.sampling.get_state().tolist(), torch.get_rng_state().tolist()]
        return [agent.random.bit_generator.state, np.random.get_state()[1].tolist(), *torches]

    before = copy.deepcopy(states())
    agent.act(at(noise(vectors(), 1), 0), explore=False)
    assert states() == before
    agent.act(at(noise(vectors(), 1), 0), explore=True)
    assert states() != before


def test_making_an_agent_leaves_the_random_numbers_of_others_alone():
    before = torch.get_rng_state()
    config().make(vectors(), 0)
    assert torch.equal(torch.get_rng_state(), before)


# --- seeds -------------------------------------------------------------------------------------

HASH = """
import hashlib
from agents.dqn import Config
from envs import gymnasium
from rlplay.nets import encoders
from rlplay.play import collect, play

for seed in (0, 1):
    env = gymnasium.Config(num_envs=2).make()
    encoder = encoders.Config(name="mlp", hidden=(16,))
    agent = Config(encoder=encoder, hidden=8, learning_starts=20, device="cpu").make(env.spec, seed)
    moments = play(env, agent, env.reset(seed))
    for _ in range(40):
        agent.learn(collect(moments, agent.horizon))
    digest = hashlib.sha256()
    for array in agent.state_dict()["weights"].values():
        digest.update(array.tobytes())
    print(agent.descent.num_updates, digest.hexdigest())
"""


def test_same_seed_is_the_same_network_in_two_processes_and_another_seed_another():
    command, environment = [sys.executable, "-c", HASH], os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    first, second = (process.communicate()[0].splitlines() for process in running)
    assert first == second
    assert [line.split()[0] for line in first] == ["36", "36"]
    assert first[0] != first[1]


# --- when it learns ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 2, 4, 8])
def test_number_of_updates_depends_on_agent_steps_alone(num_envs):
    spec = vectors(num_envs)
    agent = config(steps_per_update=4, learning_starts=32).make(spec, 0)
    assert agent.horizon == max(1, 4 // num_envs)
    before = weights(agent)
    while agent.num_seen < 80:
        agent.learn(noise(spec, agent.horizon, seed=agent.num_seen))
        if agent.num_seen < 32:
            assert same(before, weights(agent)), "it learned before learning_starts"
    # The updates of the steps 32, 36, ... 80, and with 8 envs also the one of step 28, due at 32.
    assert agent.descent.num_updates == (14 if num_envs == 8 else 13)


def test_target_is_the_network_as_it_was_at_the_last_multiple():
    spec = vectors(1)
    agent = config(steps_per_update=1, learning_starts=10, target_every=16).make(spec, 0)
    last = weights(agent)
    for step in range(1, 50):
        agent.learn(noise(spec, 1, seed=step))
        if step % 16 == 0:
            last = weights(agent)
        target = {name: value.numpy() for name, value in agent.target.state_dict().items()}
        assert same(last, target), step
        assert same(weights(agent), target) == (step % 16 == 0 or step < 10)


def test_first_updates_wait_until_a_whole_return_is_in_memory():
    agent = config(learning_starts=1, steps_per_update=1, n_step=3).make(vectors(1), 0)
    for step in range(6):
        agent.learn(noise(vectors(1), 1, seed=step, terminated=np.zeros((2, 1), bool)))
    assert agent.descent.num_updates == 3


# --- what it learns ----------------------------------------------------------------------------

SEEN, NEXT = np.float32([1, 0, 0]), np.float32([0, 1, 0])
REWARD, DISCOUNT = 0.25, 0.9
ONLINE = np.float32([[0.5, -0.2, 0], [0.1, 0.3, 0], [0.2, 0.1, 0]])  # [A, 3] Q = ONLINE @ seen
TARGET = np.float32([[0, 0.4, 0], [0, -0.1, 0], [0, 0.7, 0]])


def known(**changes: Any) -> DQN:
    """Return an agent whose memory holds one transition many times, SEEN -> NEXT by action 0, and
    whose networks are known: online at NEXT [-.2 .3 .1], target there [.4 -.1 .7]."""
    spec = vectors(num_envs=2)
    settings = {"encoder": LINEAR, "discount": DISCOUNT, "learning_starts": 200, "batch_size": 4}
    agent = config(**(settings | changes)).make(spec, 0)
    with torch.no_grad():
        for network, values in ((agent.online, ONLINE), (agent.target, TARGET)):
            for name, parameter in network.named_parameters():
                if name == "head.advantage.weight":
                    parameter.copy_(torch.from_numpy(values))
                else:
                    parameter.zero_()
    # The moments alternate SEEN, NEXT, and every NEXT is cut, so that SEEN alone is sampled.
    reward = np.full((10, 2, 1), REWARD, np.float32)
    step = steps(
        spec,
        10,
        observation=np.stack([np.stack([SEEN] * 2), np.stack([NEXT] * 2)] * 5),
        reward=reward,
        score=reward,
        terminated=np.zeros((10, 2), bool),
        truncated=np.array([[False] * 2, [True] * 2] * 5),
        discount=np.ones((10, 2), np.float32),
    )
    agent.learn(Trajectory(step, Decision(np.zeros((9, 2), np.int64), {})))
    assert agent.descent.num_updates == 0
    return agent


def huber(error: float) -> float:
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def test_plain_target_is_the_best_value_of_the_target_network():
    metrics = known().update()
    assert metrics["train/q_value"] == pytest.approx(0.5)
    assert metrics["train/loss"] == pytest.approx(huber(0.5 - (0.25 + 0.9 * 0.7)))
    # What it is not: the best of the online network.
    assert metrics["train/loss"] != pytest.approx(huber(0.5 - (0.25 + 0.9 * 0.3)))


def test_double_target_is_the_value_of_the_online_networks_choice():
    metrics = known(double=True).update()
    assert metrics["train/loss"] == pytest.approx(huber(0.5 - (0.25 + 0.9 * -0.1)))


def test_n_step_target_ends_with_the_episode():
    # The 3-step returns from SEEN are cut after one step, at NEXT.
    metrics = known(n_step=3).update()
    assert metrics["train/loss"] == pytest.approx(huber(0.5 - (0.25 + 0.9 * 0.7)))


def test_dueling_target_and_values_are_centred_around_the_value_of_the_state():
    agent = known(dueling=True)
    metrics = agent.update()
    online, target = np.float32([0.5, 0.1, 0.2]), np.float32([0.4, -0.1, 0.7])
    q_value, best = online[0] - online.mean(), (target - target.mean()).max()
    assert metrics["train/q_value"] == pytest.approx(q_value)
    assert metrics["train/loss"] == pytest.approx(huber(q_value - (0.25 + 0.9 * best)))


def test_update_moves_the_chosen_value_towards_its_target():
    agent = known()
    step = Step.at(np.stack([SEEN, NEXT]), 3)
    losses = [agent.update()["train/loss"] for _ in range(200)]
    q_values = agent.act(step, explore=False).notes["q_values"]
    assert losses[-1] < 1e-3 * losses[0]
    assert q_values[0, 0] == pytest.approx(0.25 + 0.9 * 0.7, abs=0.02)
    assert q_values[0, 1:] == pytest.approx(ONLINE[1:, 0]), "actions not taken were moved"


def test_prioritized_memory_learns_of_the_errors_and_weighs_the_loss():
    spec, settings = vectors(2), {"encoder": LINEAR, "priority_exponent": 0.5, "priority_beta": 1.0}
    plenty = {"learning_starts": 200, "batch_size": 16, "prioritized": True}
    agent = config(**settings, **plenty, discount=DISCOUNT).make(spec, 0)
    agent.learn(noise(spec, 40))
    agent.update()  # so that priorities differ

    twin = torch.Generator()
    twin.set_state(agent.sampling.get_state())
    batch = agent.replay.sample(16, twin, 1.0)
    assert len(batch.weight.unique()) > 1
    with torch.no_grad():
        best = agent.target(batch.next_observation).max(1).values
        chosen = agent.online(batch.observation)[torch.arange(16), batch.action]
    error = (chosen - (batch.returns + batch.discount * best)).double().numpy()
    losses = np.array([huber(e) for e in error])
    metrics = agent.update()
    assert metrics["train/loss"] == pytest.approx(float((batch.weight.numpy() * losses).mean()))
    assert metrics["train/loss"] != pytest.approx(float(losses.mean()))
    assert agent.replay.tree is not None
    priority = agent.replay.tree.levels[0][batch.index % agent.replay.capacity].numpy()
    assert priority == pytest.approx(np.abs(error) ** 0.5, rel=1e-3)


# --- what it takes and refuses -----------------------------------------------------------------


def test_agent_that_only_plays_takes_no_memory():
    agent = config(replay_size=1_000_000_000).make(vectors(), 0, learns=False)
    assert agent.memory is None
    assert agent.act(at(noise(vectors(), 1), 0), explore=False).action.shape == (2,)


def test_memory_that_does_not_fit_is_refused_before_it_is_taken(monkeypatch):
    class Watched(Replay):
        def __init__(self, *arguments: Any, device: Any = "cpu", **keywords: Any) -> None:
            assert device == "meta", "the memory was taken"
            super().__init__(*arguments, device=device, **keywords)

    spec = Spec(2, PICTURES, spaces.Discrete(3), num_stacked=4)
    settings = config(encoder=encoders.Config(name="nature", width=0.1), replay_size=100_000)
    monkeypatch.setattr(hardware, "free_memory", lambda device: 10_000_000)
    monkeypatch.setattr(agents.dqn, "Replay", Watched)
    with pytest.raises(Mistake, match=r"100,000 moments needs 0\.1 GB") as seen:
        settings.make(spec, 0)
    monkeypatch.undo()
    monkeypatch.setattr(hardware, "free_memory", lambda device: 10_000_000)
    fits = int(re.findall(r"agent\.replay_size to (\d+)", str(seen.value))[0])
    assert 5000 < fits < 8000
    dataclasses.replace(settings, replay_size=fits).make(spec, 0)
    with pytest.raises(Mistake, match="replay"):
        dataclasses.replace(settings, replay_size=2 * fits).make(spec, 0)


def test_world_that_it_cannot_play_is_refused():
    continuous = Spec(1, spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,)))
    with pytest.raises(Mistake, match="discrete actions"):
        config().make(continuous, 0)
    several = dataclasses.replace(vectors(), num_players=2)
    with pytest.raises(Mistake, match="alone"):
        config().make(several, 0)


def test_learning_that_would_never_start_is_refused():
    with pytest.raises(Mistake, match=r"agent\.learning_starts 201 .* agent\.replay_size 200"):
        config(learning_starts=201).make(vectors(), 0)
    agent = config(learning_starts=200).make(vectors(), 0)
    agent.learn(noise(vectors(), 99))
    assert agent.descent.num_updates == 0
    agent.learn(noise(vectors(), 2))
    assert agent.descent.num_updates > 0


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_reward_that_is_no_number_stops_learning_and_changes_nothing(poison, prioritized):
    spec = vectors()
    agent = config(prioritized=prioritized).make(spec, 0)
    agent.learn(noise(spec, 20))
    bad = np.full((101, 2, 1), poison, np.float32)
    agent.replay.add(noise(spec, 100, seed=1, reward=bad))  # nothing else is left in memory
    before, updates = copy.deepcopy(agent.state_dict()), agent.descent.num_updates
    assert updates > 0
    with pytest.raises(NonFinite, match="not finite") as caught:
        agent.update()
    assert not np.isfinite(caught.value.batch["returns"]).any()
    assert len(caught.value.batch["action"]) == 8
    after = agent.state_dict()
    assert agent.descent.num_updates == updates
    assert same(before["weights"], after["weights"])
    assert same(before["agent"]["target"], after["agent"]["target"])
    for name, moments in before["agent"]["optimizer"].items():
        assert same(moments, after["agent"]["optimizer"][name])


# --- bfloat16 ----------------------------------------------------------------------------------


def picture_agent(seed: int = 0, **changes: Any) -> DQN:
    spec = Spec(2, PICTURES, spaces.Discrete(3))
    encoder = encoders.Config(name="nature", width=0.1)
    settings = {"encoder": encoder, "hidden": 8, "precision": "bfloat16", "steps_per_update": 8}
    return config(**(settings | changes)).make(spec, seed)


@pytest.mark.parametrize("dueling", [False, True])
def test_pictures_are_computed_in_bfloat16_values_and_masters_in_float32(dueling):
    agent = picture_agent(dueling=dueling)
    spec = Spec(2, PICTURES, spaces.Discrete(3))
    for network in (agent.online, agent.target):
        assert {p.dtype for p in network.encoder.parameters()} == {torch.bfloat16}
        assert network.head.hidden is not None
        assert network.head.hidden.weight.dtype == torch.bfloat16
        assert network.head.advantage.weight.dtype == torch.float32
    assert {array.dtype for array in weights(agent).values()} == {np.dtype(np.float32)}
    before = weights(agent)
    agent.learn(noise(spec, 8))
    assert agent.descent.num_updates == 2
    assert all(not np.array_equal(before[name], array) for name, array in weights(agent).items())
    assert agent.act(at(noise(spec, 1), 0)).notes["q_values"].dtype == np.float32


def test_steps_smaller_than_bfloat16_can_add_are_not_lost():
    spec = Spec(2, PICTURES, spaces.Discrete(3))
    agent = picture_agent(learning_rate=1e-6)
    coarse = [p.detach().clone() for p in agent.online.encoder.parameters()]
    fine = weights(agent)
    agent.learn(noise(spec, 8))
    moved = [np.abs(weights(agent)[name] - fine[name]).max() for name in fine]
    assert min(moved) > 1e-7
    # In the bfloat16 copies, most weights do not show it yet.
    pairs = zip(coarse, agent.online.encoder.parameters(), strict=True)
    assert np.mean([(old == new).float().mean().item() for old, new in pairs]) > 0.9


def test_auto_precision_is_float32_where_it_does_not_pay():
    agent = config(precision="auto").make(vectors(), 0)
    assert {p.dtype for p in agent.online.parameters()} == {torch.float32}


# --- saving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("parts", [False, True], ids=["plain", "all parts"])
def test_loaded_agent_goes_on_bitwise(tmp_path, precision, parts):
    spec = Spec(2, PICTURES, spaces.Discrete(3))
    switches = dict.fromkeys(["double", "dueling", "prioritized"], parts)
    settings = {"precision": precision, "target_every": 20, "n_step": 3 if parts else 1}
    agent = picture_agent(**settings, **switches)
    other = picture_agent(seed=1, **settings, **switches)

    def go_on(agent: DQN, seeds: range) -> list[Any]:
        trail = []
        for seed in seeds:
            trajectory = noise(spec, agent.horizon, seed)
            trail.append(agent.act(at(trajectory, 0)).action.tolist())
            trail.append(agent.learn(trajectory))
        return trail

    go_on(agent, range(12))
    checkpoint.save(tmp_path, "1", agent.state_dict())
    other.load_state_dict(checkpoint.load(tmp_path / "1"))
    assert go_on(agent, range(12, 24)) == go_on(other, range(12, 24))
    assert same(weights(agent), weights(other))
    assert agent.descent.num_updates > 10
    # Negative control: a fresh agent does something else.
    assert go_on(picture_agent(seed=1, **settings, **switches), range(12, 24)) != go_on(
        other, range(24, 36)
    )


def test_checkpoint_without_its_memory_leaves_the_memory_empty():
    agent, other = config().make(vectors(), 0), config().make(vectors(), 1)
    agent.learn(noise(vectors(), 20))
    other.load_state_dict({k: v for k, v in agent.state_dict().items() if k != "replay"})
    assert len(other.replay) == 0
    assert same(weights(agent), weights(other))
    assert other.num_seen == 40
