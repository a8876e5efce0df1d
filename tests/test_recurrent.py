"""Laws of rlplay/nets/recurrent.py and of the agents that remember by it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from agents import a2c, dqn, ppo, reinforce
from envs import memory_corridor, tictactoe
from rlplay import checkpoint, evaluate
from rlplay.core import Mistake, Step
from rlplay.nets import encoders, recurrent
from rlplay.play import collect, play
from rlplay.rollout import shuffled

BARE = encoders.Config(name="mlp", hidden=())
KINDS: dict[str, Any] = {"ppo": ppo.Config, "a2c": a2c.Config, "reinforce": reinforce.Config}
ALL = KINDS | {"dqn": dqn.Config}
OWN: dict[str, Any] = {
    "ppo": {"horizon": 12, "batch_size": 24, "epochs": 2},
    "a2c": {"horizon": 12},
    "reinforce": {"horizon": 12, "num_episodes": 2},
    "dqn": {
        "sequence_length": 5,
        "burn_in": 3,
        "batch_size": 10,
        "steps_per_update": 40,
        "learning_starts": 40,
        "replay_size": 100,
        "epsilon_end": 0.5,
        "epsilon_steps": 40,
        "target_every": 80,
    },
}
every_kind = pytest.mark.parametrize("kind", ["gru", "lstm"])
every_agent = pytest.mark.parametrize("name", ALL)
every_policy_gradient = pytest.mark.parametrize("name", KINDS)


def corridor(num_envs: int = 4, **changes: Any) -> memory_corridor.MemoryCorridor:
    """Return corridors so short that many episodes end: some truncated, others at the fork."""
    return memory_corridor.Config(
        num_envs=num_envs, **({"length": 2, "max_steps": 6} | changes)
    ).make()


def make(name: str, kind: str = "lstm", seed: int = 0, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "encoder": BARE,
        "hidden": 8,
        "device": "cpu",
        "recurrent": recurrent.Config(kind, 8),
    }
    settings |= OWN.get(name, {}) | changes
    return ALL[name](**settings).make(corridor().spec, seed)


def memory(kind: str) -> tuple[recurrent.Recurrent, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = recurrent.Config(kind, 5).make(3)
        assert made is not None
        return made, torch.randn(2, made.memory_size)


def changed(agent: Any) -> Any:
    """Return the agent with a policy that tells what it sees apart, as it does after learning."""
    with torch.no_grad():
        for parameter in agent.network.policy.layer.parameters():
            parameter.mul_(100)
    return agent


# The network


@every_kind
def test_episodes_unrolled_together_are_each_unrolled_alone(kind):
    layer, before = memory(kind)
    random = torch.Generator().manual_seed(1)
    features = torch.randn(9, 2, 3, generator=random)
    first = torch.zeros(9, 2, dtype=torch.bool)
    first[4, 0] = first[5, 0] = first[7, 1] = True
    together, after = layer(features.flatten(0, 1), before, first.flatten())
    together = together.unflatten(0, (9, 2))
    for env, begins in ((0, (4, 5, 9)), (1, (7, 9))):
        alone, state = [], before[env : env + 1]
        for start, end in itertools.pairwise((0, *begins)):
            state = state if start == 0 else torch.zeros_like(state)
            for t in range(start, end):
                out, state = layer(features[t, env : env + 1], state)
                alone.append(out[0])
        torch.testing.assert_close(together[:, env], torch.stack(alone))
        torch.testing.assert_close(after[env], state[0])


@every_kind
def test_nothing_flows_across_the_end_of_an_episode(kind):
    layer, before = memory(kind)
    first = torch.zeros(6, 2, dtype=torch.bool)
    first[3, 0] = True

    def reached(first: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which moments, and which memory, matter for what is said at the last moment."""
        features = torch.ones(12, 3, requires_grad=True)
        start = before.clone().requires_grad_()
        layer(features, start, first)[0][-2:].sum().backward()
        assert features.grad is not None
        assert start.grad is not None
        return features.grad.view(6, 2, 3).abs().sum(2) > 0, start.grad.abs().sum(1) > 0

    moments, start = reached(first.flatten())
    assert moments[:, 0].tolist() == [False] * 3 + [True] * 3
    assert moments[:, 1].all()
    assert start.tolist() == [False, True]
    moments, start = reached(None)  # negative control: without the episode's end all of it flows
    assert moments.all()
    assert start.all()


@every_kind
def test_layer_stays_in_float32_where_its_network_does_not(kind):
    layer, before = memory(kind)
    out, after = layer(torch.ones(2, 3, dtype=torch.bfloat16), before)
    assert out.dtype == after.dtype == torch.float32
    assert layer.keep_float32


@every_agent
def test_agent_that_remembers_learns_in_bfloat16(name):
    agent, env = make(name, precision="bfloat16"), corridor()
    assert torch.bfloat16 in {parameter.dtype for parameter in agent.descent.optimizer.parameters}
    learn(agent, env, env.reset(0))
    assert agent.descent.num_updates


# Acting and learning


@every_policy_gradient
@every_kind
@pytest.mark.parametrize("shared", [True, False])
def test_unrolled_network_says_what_it_said_when_acting(name, kind, shared):
    agent, env = changed(make(name, kind, shared=shared)), corridor()
    moments = play(env, agent, env.reset(0))
    collect(moments, 7)  # so that the rollout begins in the middle of episodes
    trajectory = collect(moments, 12)
    assert trajectory.step.done[1:-1].any()
    rollout = agent.rollout(trajectory)
    batch = rollout.flat()
    policy, value = agent.judge(batch)
    torch.testing.assert_close(value, batch["value"])
    torch.testing.assert_close(policy.log_prob(batch["sample"]), batch["log_prob"])
    said = agent.act(trajectory.step._replace(**last(trajectory.step))).notes["value"]
    torch.testing.assert_close(rollout.value[-1], torch.from_numpy(said))
    # Negative control: without the ends of episodes, or without what was before, it says others.
    for name, other in (("first", False), ("memory", 0)):
        changed_batch = batch | {name: torch.full_like(batch[name], other)}
        _, another = agent.judge(changed_batch)
        assert not torch.allclose(another, value, atol=1e-3), name


def last(step: Step) -> dict[str, Any]:
    """Return the columns of the last moment of a trajectory."""
    return {name: column[-1] for name, column in step._asdict().items() if column is not None}


def test_batches_hold_whole_sequences_with_the_memory_before_them():
    agent, env = make("ppo"), corridor()
    rollout = agent.rollout(collect(play(env, agent, env.reset(0)), 12))
    number = torch.arange(48).view(12, 4)
    flat = rollout.flat(number=number)
    random = torch.Generator().manual_seed(0)
    batches = list(shuffled(flat, 24, 3, random))
    assert len(batches) == 6
    for epoch in (batches[:2], batches[2:4], batches[4:]):
        assert sorted(torch.cat([b["number"] for b in epoch]).tolist()) == list(range(48))
    for batch in batches:
        envs = batch["number"][:2]  # of the first moment
        torch.testing.assert_close(batch["number"].view(12, 2), number[:, envs])
        torch.testing.assert_close(batch["memory"], flat["memory"][envs])
        value = agent.judge(batch)[1]
        torch.testing.assert_close(value.view(12, 2), rollout.value[:-1][:, envs])


@every_kind
def test_sequences_of_the_memory_are_what_was_lived_through(kind):
    """Each of them is a piece of one env's life, and the burnt-in network says of its end what it
    said when acting, where the episode began after the burn-in did."""
    agent, env = make("dqn", kind), corridor()
    step, said = env.reset(0), {}
    moments = itertools.islice(play(env, agent, step), 25)
    trajectory = collect(moments, 25)
    agent.replay.add(trajectory)
    step, decision = trajectory
    batch = agent.replay.sample_sequences(64, torch.Generator().manual_seed(0))
    assert batch.over.shape == (9, 64)
    assert batch.over[:-1].any()
    assert not batch.over[0].any()
    columns = (step.observation[:-1], step.done[:-1], decision.action)
    for b in range(64):
        lived = [np.flatnonzero(agrees(batch, b, env, columns)) for env in range(4)]
        said[b] = [(int(t), env) for env in range(4) for t in lived[env]]
        assert said[b], "no env lived through this"
    q_values = agent.unrolled(agent.online, batch).detach().numpy()  # [6, B, A]
    sure = 0
    for b, places in said.items():
        began = np.flatnonzero(batch.over[:, b].numpy())
        if len(places) > 1 or not len(began):
            continue
        (t, env), sure = places[0], sure + 1
        at = np.arange(3, 9) > began[0]  # moments whose episode began in the sequence
        now = decision.notes["q_values"][t + 3 : t + 9, env]
        np.testing.assert_allclose(q_values[at[: len(now)].nonzero()[0], b], now[at], atol=1e-5)
    assert sure > 5


def agrees(batch: Any, b: int, env: int, columns: Any) -> np.ndarray:
    """Return from which moments on an env lived through sequence b."""
    seen, over, action = (column[:, env] for column in columns)
    return np.array(
        [
            np.array_equal(seen[t : t + 9], batch.observation[:, b])
            and np.array_equal(over[t : t + 9], batch.over[:, b])
            and np.array_equal(action[t : t + 8], batch.action[:, b])
            for t in range(len(seen) - 8)
        ]
    )


def test_burn_in_passes_no_gradient_but_memory():
    agent, env = make("dqn"), corridor(max_steps=50, length=40)
    agent.replay.add(collect(play(env, agent, env.reset(0)), 25))
    batch = agent.replay.sample_sequences(6, torch.Generator().manual_seed(0))
    with_burn_in = agent.unrolled(agent.online, batch)
    later = batch._replace(**{name: column[3:] for name, column in batch._asdict().items()})
    agent.config = dataclasses.replace(agent.config, burn_in=0)
    without = agent.unrolled(agent.online, later)
    assert without.shape == with_burn_in.shape
    assert not torch.allclose(without, with_burn_in)
    weight = agent.online.recurrent.layer.weight_hh_l0
    (whole,) = torch.autograd.grad(agent.unrolled(agent.online, batch)[-1].sum(), weight)
    (cut,) = torch.autograd.grad(with_burn_in[-1].sum(), weight)
    assert not torch.allclose(whole, cut)


# Saving and showing


@every_agent
def test_resume_in_the_middle_of_an_episode_is_bitwise(name, tmp_path):
    agent, env = make(name), corridor()
    step = learn(agent, env, env.reset(0))
    assert agent.playing.memory.abs().sum() > 0
    checkpoint.save(tmp_path, "1", {**agent.state_dict(), "env": env.state_dict()})
    state = checkpoint.load(tmp_path / "1")
    there, other = corridor(), make(name, seed=5)
    there.reset(7)
    arrived = there.load_state_dict(state.pop("env"))
    other.load_state_dict(state)
    forgetful = make(name, seed=5)
    forgetful.load_state_dict(state)
    forgetful.cut()  # negative control: one that forgot where it was
    forgotten = thought(forgetful, arrived)
    learn(agent, env, step)
    learn(other, there, arrived)
    pair = (one.descent.optimizer.masters for one in (agent, other))
    for one, two in zip(*pair, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(agent.playing.memory, other.playing.memory)
    other.load_state_dict(state)
    assert not np.array_equal(forgotten, thought(other, arrived))


def thought(agent: Any, step: Step, explore: bool = True) -> Any:
    """Return the values that an agent expects, of moments or of actions."""
    notes = agent.act(step, explore).notes
    return notes["value"] if "value" in notes else notes["q_values"]


def learn(agent: Any, env: Any, step: Step, count: int = 5) -> Step:
    moments = play(env, agent, step)
    for _ in range(count):
        trajectory = collect(moments, agent.horizon)
        agent.learn(trajectory)
    return env.step_now


@every_agent
def test_evaluation_leaves_no_trace_and_starts_without_memory(name):
    agent, undisturbed = make(name), make(name)
    scores = []
    for one, looks in ((agent, True), (undisturbed, False)):
        env = corridor()
        moments = play(env, one, env.reset(0))
        for _ in range(4):
            one.learn(collect(moments, one.horizon))
            next(moments)  # so that it happens in the middle of episodes
            if looks:
                protocol = evaluate.Config(num_episodes=6, num_envs=3)
                twice = [evaluate.evaluate(corridor(3), one, protocol).lengths for _ in range(2)]
                assert np.array_equal(*twice)
                scores.append(twice)
    pair = (one.descent.optimizer.masters for one in (agent, undisturbed))
    for one, two in zip(*pair, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(agent.playing.memory, undisturbed.playing.memory)


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_acting_without_exploring_remembers_until_a_new_stream_begins(name):
    agent, env = make(name), corridor()
    step = env.reset(0)
    first, second = (thought(agent, step, explore=False) for _ in range(2))
    assert not np.array_equal(first, second)
    agent.begin()
    assert np.array_equal(first, thought(agent, step, explore=False))
    thought(agent, step._replace(truncated=np.ones(4, bool)), explore=False)
    assert np.array_equal(first, thought(agent, step, explore=False))  # an episode began


def test_another_number_of_envs_begins_without_memory():
    agent = make("ppo")
    thought(agent, corridor(4).reset(0), explore=False)
    few = thought(agent, corridor(2).reset(0), explore=False)
    agent.begin()
    assert np.array_equal(few, thought(agent, corridor(2).reset(0), explore=False))


# Mistakes


def test_batch_that_cuts_sequences_is_refused():
    with pytest.raises(Mistake, match=r"cuts the sequences .* set agent.batch_size=12$"):
        make("ppo", batch_size=8)
    with pytest.raises(Mistake, match=r"does not divide .* set agent.batch_size=24$"):
        make("ppo", batch_size=36)
    make("ppo", kind="none", batch_size=8)
    with pytest.raises(Mistake, match=r"does not hold whole sequences .* set agent.batch_size=15$"):
        make("dqn", batch_size=13)


def test_replay_of_single_steps_is_refused():
    with pytest.raises(Mistake, match="cannot learn from single steps"):
        make("dqn", sequence_length=1)
    with pytest.raises(Mistake, match="replays uniformly"):
        make("dqn", prioritized=True)
    with pytest.raises(Mistake, match="only a recurrent agent learns from sequences"):
        make("dqn", kind="none")


def test_memory_is_for_those_who_play_alone():
    config = dataclasses.replace(ppo.Config(), encoder=BARE, recurrent=recurrent.Config("gru"))
    with pytest.raises(Mistake, match="remembers only where it plays alone"):
        config.make(tictactoe.Config(num_envs=2).make().spec, 0)


# What it is for


@pytest.mark.parametrize(("kind", "learns"), [("lstm", True), ("none", False)])
def test_corridor_is_learned_with_memory_and_not_without(kind, learns):
    env = memory_corridor.Config(num_envs=16, length=4).make()
    config = ppo.Config(
        encoder=BARE,
        hidden=0,
        recurrent=recurrent.Config(kind, 16),
        horizon=32,
        batch_size=128,
        learning_rate=1e-2,
        clip_range=0.2,
        schedule_steps=40_000,
        discount=0.95,
        device="cpu",
    )
    agent = config.make(env.spec, 0)
    moments = play(env, agent, env.reset(0))
    for _ in range(40):
        agent.learn(collect(moments, agent.horizon))
    test = memory_corridor.Config(num_envs=50, length=4).make()
    result = evaluate.evaluate(test, agent, evaluate.Config(num_episodes=100, num_envs=50))
    assert (result.scores.mean() > 0.9) == learns
    assert learns or 0.3 < result.scores.mean() < 0.7
