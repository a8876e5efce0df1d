"""Laws of rlplay/frozen.py: an agent behind a frozen encoder is the agent with it inside, and every
moment is looked at once."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rlplay import checkpoint, config, frozen, run
from rlplay.core import Array, Mistake, Spec, State, Step
from rlplay.frozen import Frozen
from rlplay.nets import backbones, encoders
from rlplay.play import collect, play
from rlplay.train import Training

ON_POLICY = ("ppo", "a2c", "pqn", "reinforce")
SMALL: dict[str, Any] = {
    "hidden": 8,
    "horizon": 8,
    "epochs": 2,
    "num_episodes": 2,
    "batch_size": 4,
    "learning_starts": 16,
    "replay_size": 200,
    "target_every": 8,
    "device": "cpu",
}
DIGITS = """
env: {name: bandit, contexts: digits, num_envs: 2, max_steps: 30}
agent:
  name: ppo
  encoder: {name: mlp, hidden: [12, 6], learn: none}
  hidden: 8
  horizon: 8
  batch_size: 8
  schedule_steps: 320
  device: cpu
num_steps: 320
log_every: 16
evaluation: {num_episodes: 2, num_envs: 2}
evaluate_every: 64
recording: {max_steps: 0}
checkpoint: {every: 96}
"""


class Screens:
    """N small screens of random pictures, one in three of which ends an episode."""

    def __init__(self, num_envs: int = 2, size: int = 36, num_stacked: int = 1) -> None:
        space = Box(0, 255, (num_stacked, size, size), np.uint8)
        self.spec = Spec(num_envs, space, Discrete(3), num_stacked=num_stacked)

    def reset(self, seed: int) -> Step:
        self.random = np.random.default_rng(seed)
        return self.step(np.zeros(self.spec.num_envs, np.int64))

    def step(self, action: Array) -> Step:
        space, n = self.spec.observation_space, self.spec.num_envs
        shown = self.random.integers(256, size=(n, *(space.shape or ())), dtype=np.uint8)
        over = self.random.random(n) < 0.3
        return Step.at(shown, 3, reward=(action == 1).astype(np.float32)[:, None], terminated=over)


def settings(name: str, learn: encoders.Learn = "none", **changes: Any) -> Any:
    default = config.plugin("agents", name).Config()
    changes = SMALL | {"encoder": encoders.Config(width=0.1, learn=learn)} | changes
    return dataclasses.replace(default, **{k: v for k, v in changes.items() if hasattr(default, k)})


def learned(agent: Any, env: Any, num: int = 6) -> list[Any]:
    moments = play(env, agent, env.reset(0))
    return [agent.learn(collect(moments, agent.horizon)) for _ in range(num)]


def played(env: Any, agent: Any, seed: int, explore: bool = True) -> Any:
    return play(env, agent, env.reset(seed), explore)


def weights(agent: Any) -> dict[str, Array]:
    return {name: np.array(array) for name, array in agent.state_dict()["weights"].items()}


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return np.array_equal(one, two)


# --- the same agent ----------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ON_POLICY)
def test_agent_behind_its_encoder_learns_what_it_learns_with_it_inside(name, precision):
    env, given = Screens(), settings(name, precision=precision)
    inside, behind = given.make(env.spec, 3), frozen.make(given, env.spec, 3)
    assert isinstance(behind, Frozen)
    assert not isinstance(inside, Frozen)
    assert same(weights(inside), weights(behind))
    before = weights(inside)
    assert same(learned(inside, env), learned(behind, env))
    assert same(weights(inside), weights(behind))
    moved = {k for k, array in weights(behind).items() if not np.array_equal(array, before[k])}
    assert moved == {name for name in before if "encoder" not in name}
    # Negative control: an encoder that learns ends elsewhere.
    free = settings(name, "all", precision=precision).make(env.spec, 3)
    assert same(weights(free), before)
    learned(free, env)
    assert {k for k, array in weights(free).items() if not np.array_equal(array, before[k])} > moved


def test_agent_with_two_networks_sees_through_one_encoder_for_both():
    env, given = Screens(), settings("ppo", shared=False)
    agent = frozen.make(given, env.spec, 0)
    layout = given.make(env.spec, 0).state_dict()["weights"]
    assert set(weights(agent)) == set(layout)
    for name, array in weights(agent).items():
        if name.startswith("value_trunk.encoder"):
            assert np.array_equal(array, weights(agent)[name.removeprefix("value_")])


def test_dqn_behind_its_encoder_values_what_it_values_with_it_inside():
    env = Screens()
    given = settings("dqn", encoder=encoders.Config(width=0.1, learn="none"), precision="float32")
    inside, behind = given.make(env.spec, 3), frozen.make(given, env.spec, 3)
    assert isinstance(behind, Frozen)
    learned(behind, env, 40)
    inside.load_state_dict({k: v for k, v in behind.state_dict().items() if k != "replay"})
    for moment in itertools.islice(played(env, behind, 5, explore=False), 20):
        theirs = inside.act(moment.step, explore=False)
        assert np.array_equal(moment.decision.notes["q_values"], theirs.notes["q_values"])


def test_dqn_remembers_features_only_where_they_are_smaller_than_a_frame():
    for size, width, stacked, precision, smaller in (
        (36, 1, 1, "float32", True),  # 64 features of 4 bytes, and 36 * 36 of one
        (84, 1, 1, "float32", False),  # 3136 of 4 bytes and 84 * 84 of one
        (84, 1, 1, "bfloat16", True),
        (84, 1, 4, "bfloat16", True),  # of a stack, only one frame is stored
        (44, 1, 4, "bfloat16", True),  # 256 of 2 bytes
        (84, 2, 4, "bfloat16", False),
    ):
        env = Screens(size=size, num_stacked=stacked)
        encoder = encoders.Config(name="nature", width=width, learn="none")
        agent = frozen.make(settings("dqn", encoder=encoder, precision=precision), env.spec, 0)
        assert isinstance(agent, Frozen) == smaller, (size, width, stacked, precision)
        frame = agent.state_dict()["replay"]["frame"]
        kept = {"float32": np.float32, "bfloat16": np.float16}[precision]
        assert frame.dtype == (kept if smaller else np.uint8)
        assert (np.prod(frame.shape[1:]) * frame.dtype.itemsize <= size * size) or not smaller


def test_agent_that_learns_or_normalizes_keeps_its_encoder():
    spec = Screens().spec
    each: tuple[encoders.Learn, ...] = ("all", "last")
    for learn in each:
        assert not isinstance(frozen.make(settings("ppo", learn), spec, 0), Frozen)
    seen = dataclasses.replace(spec, observation_space=Box(-1, 1, (5,), np.float32))
    mlp = encoders.Config(name="mlp", hidden=(4,), learn="none")
    for normalizes in (True, False):
        given = settings("ppo", encoder=mlp, normalize_observations=normalizes)
        assert isinstance(frozen.make(given, seen, 0), Frozen) is not normalizes
    assert not isinstance(frozen.make(config.plugin("agents", "uniform").Config(), spec, 0), Frozen)


# --- once --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_every_moment_that_is_learned_from_is_looked_at_once(name, monkeypatch):
    seen: list[bytes] = []
    encoded = Frozen.encoded

    def counted(self: Frozen, observation: Array) -> Array:
        seen.append(observation.tobytes())
        return encoded(self, observation)

    env = Screens()
    agent = frozen.make(settings(name), env.spec, 0)
    monkeypatch.setattr(Frozen, "encoded", counted)
    shown: list[bytes] = []
    moments = played(env, agent, 0)
    other = Screens()
    for _ in range(5):
        trajectory = collect(moments, agent.horizon)
        agent.learn(trajectory)
        shown += [step.tobytes() for step in trajectory.step.observation[bool(shown) :]]
        before = len(seen)
        list(itertools.islice(played(other, agent, 9, explore=False), 3))
        assert len(seen) == before + 3
        del seen[before:]  # what is shown without learning is apart, and leaves no trace
    assert seen == shown
    assert len(shown) == 5 * agent.horizon + 1
    # Negative control: without its memory of the last moment it looks again.
    monkeypatch.setattr(Frozen, "features", lambda self, observation: self.encoded(observation))
    seen.clear()
    for _ in range(2):
        agent.learn(collect(moments, agent.horizon))
    assert len(seen) == 2 * agent.horizon + 2


# --- what is saved -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ON_POLICY, "dqn", "sb3"])
def test_what_is_saved_has_the_names_of_the_whole_agent(name, tmp_path):
    env = Screens()
    given = settings(name)
    if name == "sb3":
        kind = type(config.plugin("agents", "sb3").Config().encoder)
        own = kind(name="nature", width=0.1, learn="none")
        steps = {"n_steps": 8, "batch_size": 8}
        given = dataclasses.replace(given, encoder=own, hyperparameters=steps)
    agent = frozen.make(given, env.spec, 0)
    assert isinstance(agent, Frozen)
    learned(agent, env, 4)
    state: State = agent.state_dict()
    assert set(state["weights"]) == set(given.make(env.spec, 0).state_dict()["weights"])
    checkpoint.save(tmp_path, "1", state)
    other = frozen.make(given, env.spec, 7)
    other.load_state_dict(checkpoint.load(tmp_path / "1"))
    assert same(weights(agent), weights(other))
    assert same(learned(agent, env, 3), learned(other, env, 3))
    player = frozen.make(given, env.spec, 8, learns=False)
    player.load_state_dict({k: v for k, v in agent.state_dict().items() if k != "replay"})
    step = env.reset(11)
    mine, theirs = (one.act(step, explore=False) for one in (agent, player))
    assert same(dict(mine.notes), dict(theirs.notes))


def test_agent_can_be_thawed_and_frozen_again():
    """So that a run can be resumed with another `learn`, as in gradual unfreezing."""
    env = Screens()
    pairs: tuple[tuple[encoders.Learn, encoders.Learn], ...] = (("none", "all"), ("all", "none"))
    for one, two in pairs:
        agent = frozen.make(settings("ppo", one), env.spec, 0)
        other = frozen.make(settings("ppo", two), env.spec, 1)
        learned(agent, env)
        other.load_state_dict(agent.state_dict())
        assert same(weights(other), weights(agent))
        learned(other, env, 2)


def test_who_acts_while_it_learns_acts_as_it_did_until_told():
    env = Screens()
    agent = frozen.make(settings("ppo"), env.spec, 3)
    actor, other = agent.actor(), Screens()
    seen = other.reset(7)
    before = actor.act(seen, explore=False).notes
    learned(agent, env)
    assert same(actor.act(seen, explore=False).notes, before)
    assert agent.actor() is actor
    now = actor.act(seen, explore=False).notes
    assert same(now, agent.act(seen, explore=False).notes)
    assert not same(now, before)


def test_another_encoder_is_a_mistake():
    env = Screens()
    agent = frozen.make(settings("ppo"), env.spec, 0)
    wide = encoders.Config(name="nature", width=0.2, learn="none")
    with pytest.raises(Mistake, match=r"no such encoder: set agent\.encoder"):
        frozen.make(settings("ppo", encoder=wide), env.spec, 0).load_state_dict(agent.state_dict())


def test_what_was_seen_by_an_older_encoder_is_looked_at_again():
    env = Screens()
    step = env.reset(0)
    agent, other = (frozen.make(settings("ppo"), env.spec, seed) for seed in (0, 1))
    before = agent.act(step).notes[frozen.FEATURES]
    agent.load_state_dict(other.state_dict())
    after = agent.act(step).notes[frozen.FEATURES]
    assert np.array_equal(after, other.act(step).notes[frozen.FEATURES])
    assert not np.array_equal(after, before)


def test_resumed_run_is_bitwise_the_uninterrupted_one(tmp_path):
    (tmp_path / "digits.yaml").write_text(DIGITS)
    ends, logs = [], []
    for stops in ((320,), (176, 320)):  # 176 is in the middle of an episode
        folder = None
        for num_steps in stops:
            given = config.load(str(tmp_path / "digits.yaml"), [f"--num-steps={num_steps}"])
            training = Training(given, lambda said: None)
            assert isinstance(training.agent, Frozen)
            if folder is not None:
                training.restore(checkpoint.newest(folder.checkpoints, pytest.fail)[1])
            folder = folder or run.create(given, training.spec, tmp_path / str(len(stops)))
            assert training.run(folder) == 0
        assert folder is not None
        parts = checkpoint.newest(folder.checkpoints, pytest.fail)[1]
        ends.append({name: parts[name] for name in ("weights", "agent", "env")})
        lines = run.read_lines(folder.folder / "metrics.jsonl")
        logs.append([line["train/loss"] for line in lines if "train/loss" in line])
        player = run.load_player(folder, "", pytest.fail)
        assert player.action(np.zeros(64, np.float32)) in range(10)
    assert same(*ends)
    assert logs[0] == logs[1]


def test_frozen_batch_normalization_keeps_its_statistics():
    x = torch.rand(8, 3, 16, 16)
    num_frozen: dict[encoders.Learn, int] = {"none": 2, "last": 1, "all": 0}
    for learn, frozen_stages in num_frozen.items():
        net = backbones.Config("lenet", learn=learn).make((3, 16, 16)).train()
        before = {k: v.clone() for k, v in net.state_dict().items()}
        net(x)
        still = {k for k, v in net.state_dict().items() if torch.equal(v, before[k])}
        for stage in range(2):
            moved = f"stages.{stage}.0.1.running_mean" not in still
            assert moved == (stage >= frozen_stages), (learn, stage)
