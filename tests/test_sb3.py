"""SB3's algorithms under our loop learn what they learn alone, and are agents like any other."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.vec_env import VecEnv

from agents import _sb3_model, sb3
from agents._sb3_rows import Rows
from rlplay import checkpoint, config, record, run
from rlplay.core import Mistake, NonFinite, Spec, Step
from rlplay.nets import encoders
from rlplay.play import collect, play
from rlplay.train import Training

ON_POLICY = {"n_steps": 8, "batch_size": 8}
OFF_POLICY = {"learning_starts": 6, "buffer_size": 64, "batch_size": 4, "train_freq": 2}
GREEDY = {"exploration_fraction": 0.5, "target_update_interval": 4}
HYPERPARAMETERS: dict[str, dict[str, Any]] = {
    "ppo": ON_POLICY | {"n_epochs": 2},
    "a2c": {"n_steps": 5},
    "dqn": OFF_POLICY | GREEDY,
    "sac": OFF_POLICY,
    "td3": OFF_POLICY | {"action_noise": 0.1},
    "ddpg": OFF_POLICY,
    "qr_dqn": OFF_POLICY | GREEDY,
    "tqc": OFF_POLICY,
    "trpo": ON_POLICY,
    "recurrent_ppo": ON_POLICY | {"n_epochs": 2},
    "maskable_ppo": ON_POLICY | {"n_epochs": 2},
}
NAMES = list(HYPERPARAMETERS)
CONTINUOUS = ("sac", "td3", "ddpg", "tqc")
TOTAL = 60  # agent steps, of SB3's schedules


class Clock:
    """N envs whose observations tell env, episode and time. The episodes of env i are as long as
    `lengths` says in turn from the i-th, or all from the first; every second one is truncated."""

    def __init__(
        self,
        space: Any,
        num_envs: int = 1,
        lengths: tuple[int, ...] = (3, 5, 2),
        apart: bool = True,
    ) -> None:
        self.spec = Spec(num_envs, Box(-1, 1, (3,)), space)
        self.lengths, self.apart = lengths, apart

    def reset(self, seed: int) -> Step:
        self.episode, self.time = (np.zeros(self.spec.num_envs, int) for _ in range(2))
        return self.show(np.zeros(self.spec.num_envs))

    def step(self, action: np.ndarray) -> Step:
        over = self.ends
        self.episode, self.time = self.episode + over, np.where(over, 0, self.time + 1)
        value = action.reshape(len(action), -1).mean(1)
        return self.show(np.where(over, 0, np.cos(self.time + self.episode) + value))

    @property
    def ends(self) -> np.ndarray:
        first = np.arange(self.spec.num_envs) * self.apart
        return self.time == np.array(self.lengths)[(self.episode + first) % len(self.lengths)]

    def show(self, reward: np.ndarray) -> Step:
        env = np.arange(self.spec.num_envs) * self.apart
        seen = np.stack([env / 4, np.sin(self.episode), self.time / 9], 1).astype(np.float32)
        return Step.at(
            seen,
            self.spec.num_actions,
            reward=reward[:, None].astype(np.float32),
            terminated=self.ends & (self.episode % 2 == 0),
            truncated=self.ends & (self.episode % 2 == 1),
        )

    def render(self) -> np.ndarray:
        return np.full((32, 32, 3), 9 * self.time[0] % 255, np.uint8)

    def close(self) -> None:
        return None


class Alone(VecEnv):
    """What SB3 would be given without us: worlds of one env each, begun anew within the step."""

    def __init__(self, worlds: list[Clock]) -> None:
        self.worlds = worlds
        spec = worlds[0].spec
        super().__init__(len(worlds), spec.observation_space, spec.action_space)

    def reset(self) -> Any:
        return np.concatenate([world.reset(0).observation for world in self.worlds])

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = [], [], [], []
        for world, action in zip(self.worlds, self.actions, strict=True):
            step, info = world.step(action[None]), {}
            rewards.append(step.reward[0, 0])
            dones.append(step.done[0])
            if step.done[0]:
                info = {"terminal_observation": step.observation[0]}
                info["TimeLimit.truncated"] = bool(step.truncated[0])
                step = world.step(action[None])
            observations.append(step.observation[0])
            infos.append(info)
        return np.stack(observations), np.array(rewards, np.float32), np.array(dones), infos

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def env_method(self, name: str, *_: Any, **__: Any) -> list[Any]:
        return [np.ones(world.spec.num_actions, bool) for world in self.worlds]

    def has_attr(self, attr_name: str) -> bool:
        return attr_name == "action_masks"

    def close(self) -> None:
        return None

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        return None

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class Shifted(Clock):
    """Env `index` of a Clock, by itself."""

    def __init__(self, space: Any, index: int) -> None:
        super().__init__(space)
        self.index = index

    @property
    def ends(self) -> np.ndarray:
        return self.time == np.array(self.lengths)[(self.episode + self.index) % 3]

    def show(self, reward: np.ndarray) -> Step:
        step = super().show(reward)
        step.observation[:, 0] = self.index / 4
        return step


def space_for(name: str) -> Any:
    return Box(-2, 1, (2,)) if name in CONTINUOUS else Discrete(3)


def small(name: str, **changes: Any) -> sb3.Config:
    lstm = {"lstm_hidden_size": 4} if name == "recurrent_ppo" else {}
    config = sb3.Config(
        algorithm=name,  # pyright: ignore[reportArgumentType]
        hyperparameters=HYPERPARAMETERS[name],
        policy_kwargs={"net_arch": (8,), **lstm},
        total_timesteps=TOTAL,
        device="cpu",
    )
    return dataclasses.replace(config, **changes)


def learn(agent: Any, env: Any, step: Step, num_calls: int) -> Step:
    """Play and learn on from `step`; return the step that this leads to."""
    for _ in range(num_calls):
        trajectory = collect(play(env, agent, step), agent.horizon)
        agent.learn(trajectory)
        step = Step(*(None if leaf is None else leaf[-1] for leaf in trajectory.step))
    return step


def alone(name: str, worlds: list[Clock], **changes: Any) -> Any:
    """Return SB3's own model, that plays `worlds` by SB3's own loop."""
    kind, _ = _sb3_model.ALGORITHMS[name]
    given = _sb3_model.adapted(kind, HYPERPARAMETERS[name] | changes, worlds[0].spec)
    lstm = {"lstm_hidden_size": 4} if name == "recurrent_ppo" else {}
    policy = "MlpLstmPolicy" if name == "recurrent_ppo" else "MlpPolicy"
    kwargs = {"net_arch": [8], **lstm}
    return kind(policy, Alone(worlds), seed=3, device="cpu", policy_kwargs=kwargs, **given)


def weights(model: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.policy.state_dict().items()}


def plain(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: plain(part) for name, part in state.items()}
    return (state.dtype, state.shape, state.tobytes()) if isinstance(state, np.ndarray) else state


# The same learning.


@pytest.mark.parametrize("num_envs", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_algorithm_learns_what_it_learns_alone_to_the_last_bit(name, num_envs):
    space = space_for(name)
    theirs = alone(name, [Clock(space) for _ in range(num_envs)])
    start = weights(theirs)
    theirs.learn(TOTAL)
    env = Clock(space, num_envs, apart=False)  # they end together
    agent: Any = small(name).make(env.spec, 3)
    assert weights(agent.model) == start
    step = env.reset(0)
    while agent.model.num_timesteps < theirs.num_timesteps:
        step = learn(agent, env, step, 1)
    assert agent.model._n_updates == theirs._n_updates >= 3
    assert weights(agent.model) == weights(theirs) != start


def test_moment_after_an_episode_would_change_what_is_learned(monkeypatch):
    """The negative control: SB3 must not see what stands at an episode's end acted on."""
    theirs = alone("ppo", [Clock(Discrete(3))])
    theirs.learn(TOTAL)
    add = Rows.add

    def careless(self, trajectory):
        nothing = np.zeros_like(trajectory.step.done)
        step = trajectory.step._replace(terminated=nothing, truncated=nothing)
        add(self, trajectory._replace(step=step))

    monkeypatch.setattr(Rows, "add", careless)
    env = Clock(Discrete(3))
    agent: Any = small("ppo").make(env.spec, 3)
    learn(agent, env, env.reset(0), TOTAL // 8)
    assert weights(agent.model) != weights(theirs)


def test_returns_of_several_steps_are_those_of_sb3():
    theirs = alone("dqn", [Clock(Discrete(3))], n_steps=3)
    theirs.learn(TOTAL)
    env = Clock(Discrete(3))
    config = small("dqn", hyperparameters=HYPERPARAMETERS["dqn"] | {"n_steps": 3})
    agent: Any = config.make(env.spec, 3)
    step = env.reset(0)
    while agent.model.num_timesteps < theirs.num_timesteps:
        step = learn(agent, env, step, 1)
    assert weights(agent.model) == weights(theirs)


# The buffers, where envs get out of step.


def rigid(model: Any) -> Any:
    """Let a model decide by what it sees alone."""
    if hasattr(model, "replay_buffer"):

        def sample(*_: Any) -> Any:
            action = np.floor(3 * np.abs(model._last_obs[:, 2] * 31) % 3).astype(np.int64)
            return action, action

        model._sample_action = sample
    else:
        forward = model.policy.forward
        model.policy.forward = lambda *args, **kwargs: forward(
            *args, **{**kwargs, "deterministic": True}
        )
    return model


def out_of_step(name: str) -> tuple[Any, Any]:
    """Return SB3 alone and our agent, after as much of the play of three envs as fits a rollout,
    neither of which has learned."""
    config = small(name)
    length = {"n_steps": 24, "batch_size": 72} if name != "dqn" else {"learning_starts": 1000}
    theirs = rigid(alone(name, [Shifted(Discrete(3), i) for i in range(3)], **length))
    theirs.train = lambda **_: None
    theirs.learn(72)
    env = Clock(Discrete(3), 3)
    config = dataclasses.replace(config, hyperparameters=config.hyperparameters | length)
    agent: Any = config.make(env.spec, 3)
    rigid(agent.model).train = lambda **_: None
    step = env.reset(0)
    while agent.model.num_timesteps < theirs.num_timesteps:
        step = learn(agent, env, step, 1)
    return theirs, agent


def test_replay_buffer_holds_exactly_the_transitions_of_the_play():
    theirs, agent = out_of_step("dqn")
    there, here = theirs.replay_buffer, agent.model.replay_buffer
    size = min(there.size(), here.size())
    assert size >= 20
    for name in ("observations", "next_observations", "actions", "rewards", "dones", "timeouts"):
        np.testing.assert_array_equal(getattr(here, name)[:size], getattr(there, name)[:size])
    assert here.dones[:size].sum() > here.timeouts[:size].sum() > 0
    assert not np.array_equal(here.dones[:size, 0], here.dones[:size, 1]), "in step all the time"


@pytest.mark.parametrize("name", ["ppo", "maskable_ppo", "recurrent_ppo"])
def test_rollout_buffer_holds_exactly_the_transitions_of_the_play(name):
    theirs, agent = out_of_step(name)
    there, here = theirs.rollout_buffer, agent.model.rollout_buffer
    for field in ("observations", "actions", "rewards", "episode_starts"):
        np.testing.assert_array_equal(getattr(here, field), getattr(there, field), field)
    for field in ("values", "log_probs", "advantages", "returns"):
        np.testing.assert_allclose(getattr(here, field), getattr(there, field), 1e-5, 1e-6)
    assert not np.array_equal(here.episode_starts[:, 0], here.episode_starts[:, 1])
    if name == "recurrent_ppo":
        goes_on = there.episode_starts == 0  # what is remembered elsewhere is not asked for
        here, there = (buffer.hidden_states_vf[:, 0][goes_on] for buffer in (here, there))
        np.testing.assert_allclose(here, there, 1e-5, 1e-6)


def test_life_lost_ends_an_episode_of_sb3():
    """As SB3's own wrapper of Atari has it: nothing is expected after it, yet the play goes on."""
    env = Clock(Discrete(3), lengths=(100,))
    agent: Any = small("ppo").make(env.spec, 0)
    step = env.reset(0)
    trajectory = collect(play(env, agent, step), 8)
    discount = trajectory.step.discount.copy()
    discount[3] = 0
    rows = Rows(1)
    rows.add(trajectory._replace(step=trajectory.step._replace(discount=discount)))
    taken = rows.take(8)
    assert taken["over"][:, 0].tolist() == [False, False, True, *[False] * 5]
    assert not taken["cut"].any()


def test_world_that_starts_anew_is_not_joined_to_the_one_before():
    env = Clock(Discrete(3), 2, lengths=(100,))
    config = small("dqn", hyperparameters=HYPERPARAMETERS["dqn"] | {"n_steps": 3})
    agent: Any = config.make(env.spec, 0)
    learn(agent, env, env.reset(0), 3)
    agent.cut()
    learn(agent, env, env.reset(0), 3)
    assert agent.model.replay_buffer.timeouts[:6, 0].tolist() == [0, 0, 1, 0, 0, 0]


# An agent like any other.


@pytest.mark.parametrize("name", NAMES)
def test_algorithm_trains_records_and_resumes_exactly(name, tmp_path):
    env: Any = Clock(space_for(name), 2)
    agent: Any = small(name).make(env.spec, 0)
    step = learn(agent, env, env.reset(0), 9)
    film = Clock(space_for(name))
    recording = record.record(film, agent, tmp_path / "film", record.Config(max_steps=4))
    assert recording.path.stat().st_size > 0
    checkpoint.save(tmp_path, "1", agent.state_dict())
    other: Any = small(name).make(env.spec, 5)
    other.load_state_dict(checkpoint.load(tmp_path / "1"))
    assert plain(other.state_dict()) == plain(agent.state_dict())
    twin = copy.deepcopy(env)
    learn(agent, env, step, 9)
    learn(other, twin, step, 9)
    assert agent.model._n_updates >= 3
    assert plain(other.state_dict()) == plain(agent.state_dict())
    player: Any = small(name).make(Clock(space_for(name)).spec, 0, learns=False)
    player.load_state_dict({k: v for k, v in agent.state_dict().items() if k != "replay"})
    for one in (agent, player):
        one.begin()
    step = film.reset(0)
    actions = [one.act(step, explore=False).action.tobytes() for one in (agent, player)]
    assert actions[0] == actions[1]


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_checkpoint_holds_no_pickle(name, tmp_path):
    env: Any = Clock(space_for(name), 2)
    agent: Any = small(name).make(env.spec, 0)
    learn(agent, env, env.reset(0), 9)
    path = checkpoint.save(tmp_path, "1", agent.state_dict())
    for file in path.iterdir():
        assert file.suffix in (".json", ".npz", ".safetensors")
        if file.suffix == ".npz":
            with zipfile.ZipFile(file) as members:
                headers = [members.read(member)[:128] for member in members.namelist()]
            assert all(header.startswith(b"\x93NUMPY") for header in headers)
            assert not any(b"|O" in header for header in headers)
    agent.model.save(tmp_path / "sb3.zip")  # the negative control: SB3's own way
    with zipfile.ZipFile(tmp_path / "sb3.zip") as members:
        assert b":serialized:" in members.read("data")


def test_resume_without_the_memory_waits_until_it_is_filled_again():
    env: Any = Clock(Discrete(3), 1)
    agent: Any = small("dqn").make(env.spec, 0)
    step = learn(agent, env, env.reset(0), 30)
    other: Any = small("dqn").make(env.spec, 0)
    other.load_state_dict({k: v for k, v in agent.state_dict().items() if k != "replay"})
    before = other.model._n_updates
    step = learn(other, env, step, 5)
    assert other.model._n_updates == before
    learn(other, env, step, 15)
    assert other.model._n_updates > before


def test_what_is_shown_begins_without_a_memory_of_what_was_shown_before():
    env: Any = Clock(Box(-1, 1, (1,)))
    agent: Any = small("recurrent_ppo").make(env.spec, 0)

    def shown() -> list[Any]:
        moments = itertools.islice(play(env, agent, env.reset(0), explore=False), 2)
        return [moment.decision.action.tolist() for moment in moments]

    assert shown() == shown()
    agent.begin = lambda: None  # the negative control
    assert shown() != shown()


def test_everybody_elses_random_numbers_are_left_alone():
    np.random.seed(0)
    torch.manual_seed(0)
    expected = np.random.random(), torch.rand(1).item()
    np.random.seed(0)
    torch.manual_seed(0)
    env = Clock(Discrete(3))
    agent: Any = small("dqn").make(env.spec, 0)
    learn(agent, env, env.reset(0), 20)
    assert (np.random.random(), torch.rand(1).item()) == expected


def test_what_sb3_logs_comes_under_its_names():
    env = Clock(Discrete(3))
    agent: Any = small("dqn").make(env.spec, 0)
    step = learn(agent, env, env.reset(0), 20)
    metrics: dict[str, float] = {}
    for _ in range(2):
        metrics |= agent.learn(collect(play(env, agent, step), 1))
    names = {"train/loss", "train/n_updates", "train/learning_rate", "rollout/exploration_rate"}
    assert names <= metrics.keys()
    assert all(type(value) is float for value in metrics.values())


def test_schedule_falls_over_the_whole_training():
    env = Clock(Discrete(3))
    given = HYPERPARAMETERS["ppo"] | {"learning_rate": "lin_0.1"}
    agent: Any = small("ppo", hyperparameters=given, total_timesteps=32).make(env.spec, 0)
    step, rates = env.reset(0), []
    for _ in range(50):
        trajectory = collect(play(env, agent, step), agent.horizon)
        metrics = agent.learn(trajectory)
        step = Step(*(None if leaf is None else leaf[-1] for leaf in trajectory.step))
        rates += [metrics["train/learning_rate"]] if metrics else []
    np.testing.assert_allclose(rates[:5], [0.075, 0.05, 0.025, 0, 0], atol=1e-9)


class Pictures(Clock):
    """A Clock that shows a picture, and forbids the last action at even times."""

    def show(self, reward: np.ndarray) -> Step:
        step = super().show(reward)
        n = self.spec.num_envs
        object.__setattr__(self.spec, "observation_space", Box(0, 255, (3, 36, 36), np.uint8))
        seen = np.repeat(np.uint8(20 * self.time % 255), 3 * 36 * 36).reshape(n, 3, 36, 36)
        mask = np.ones((n, 3), bool)
        mask[self.time % 2 == 0, 2] = False
        return step._replace(observation=seen, action_mask=mask)


@pytest.mark.parametrize("name", ["dqn", "ppo", "maskable_ppo", "recurrent_ppo"])
def test_encoder_of_the_house_looks_at_pictures(name):
    env = Pictures(Discrete(3), 2)
    step = env.reset(0)
    encoder = sb3.Encoder(name="nature", width=0.1)
    agent: Any = small(name, encoder=encoder).make(env.spec, 0)
    extractors = [m for m in agent.model.policy.modules() if isinstance(m, _sb3_model.Features)]
    assert extractors
    assert all(isinstance(one.net, encoders.Nature) for one in extractors)
    before = {k: v.clone() for k, v in extractors[0].state_dict().items()}
    learn(agent, env, step, 12)
    assert any(not v.equal(before[k]) for k, v in extractors[0].state_dict().items())


@pytest.mark.parametrize("name", ["dqn", "ppo", "maskable_ppo"])
def test_illegal_action_is_never_played(name):
    env = Pictures(Discrete(3), 2)
    step = env.reset(0)
    agent: Any = small(name, policy="mlp").make(env.spec, 0)
    stored = []
    for moment in itertools.islice(play(env, agent, step), 40):
        chosen, mask = moment.decision.action, moment.step.action_mask
        assert mask[np.arange(2), chosen].all()
        stored.append(mask[np.arange(2), moment.decision.notes["stored"]])
    assert np.all(stored) == (name == "maskable_ppo"), "told of the mask, it draws legal ones"


# What is refused.


@pytest.mark.parametrize("name", NAMES)
def test_wrong_kind_of_actions_is_one_clear_sentence(name):
    wrong = Discrete(2) if name in CONTINUOUS else Box(-1, 1, (1,))
    if name in ("ppo", "a2c", "trpo", "recurrent_ppo"):
        wrong = Box(-np.inf, np.inf, (1,))
    with pytest.raises(Mistake) as mistake:
        sb3.Config(algorithm=name).make(Clock(wrong).spec, 0)
    sentence = str(mistake.value)
    assert len(sentence.splitlines()) == 1
    assert "choose another env" in sentence or "set agent.algorithm to ppo" in sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hyperparameters": {"n_step": 8}}, r"no setting 'n_step'; did you mean 'n_steps'"),
        ({"hyperparameters": {"env": "x"}}, r"no setting 'env'"),
        ({"hyperparameters": {"use_sde": True}}, r"no setting 'use_sde'"),
        ({"hyperparameters": {"n_steps": 2.5}}, r"n_steps must be a whole number >= 1, not 2.5"),
        ({"hyperparameters": {"gamma": "high"}}, r"gamma must be a number >= 0, not 'high'"),
        ({"hyperparameters": {"learning_rate": "lin_x"}}, r"a word such as lin_3e-4, not 'lin_x'"),
        ({"hyperparameters": {"n_steps": 10}}, r"batch_size 64 does not divide .* set it to 10$"),
        ({"policy_kwargs": {"net_arc": (8,)}}, r"no setting 'net_arc'; did you mean 'net_arch'"),
        ({"policy_kwargs": {"net_arch": 8}}, r"net_arch must be a list of widths"),
        ({"policy_kwargs": {"activation_fn": "Relu"}}, r"did you mean 'ReLU'"),
        ({"policy": "cnn"}, r"Stable-Baselines3 refuses this ppo: .*NatureCNN"),
        ({"algorithm": "dqn", "hyperparameters": {"buffer_size": 10**14}}, r"set .*buffer_size to"),
        ({"load": "x.zip"}, r"code_in_loaded_file_may_run=true"),
        ({"load": "x.zip", "code_in_loaded_file_may_run": True}, r"there is no file x.zip"),
    ],
)
def test_wrong_setting_is_one_clear_sentence(changes, sentence):
    with pytest.raises(Mistake, match=sentence) as mistake:
        sb3.Config(**changes).make(Clock(Discrete(3)).spec, 0)
    assert len(str(mistake.value).splitlines()) == 1


class Trap:
    """What a foreign file can hold: unpickled, it runs."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


def test_code_of_a_foreign_file_runs_only_where_it_is_allowed_in_so_many_words(tmp_path):
    trap, path = tmp_path / "it ran", tmp_path / "model.zip"
    model = alone("ppo", [Clock(Discrete(3))])
    model.learn(16)
    model.trap = Trap(trap)
    model.save(path)
    config = sb3.Config(load=str(path), device="cpu")
    spec = Clock(Discrete(3), 2).spec
    with pytest.raises(Mistake, match="code_in_loaded_file_may_run=true"):
        config.make(spec, 0)
    assert not trap.exists()
    config = dataclasses.replace(config, code_in_loaded_file_may_run=True)
    agent: Any = config.make(spec, 0)
    assert trap.exists(), "nothing was at stake"
    assert weights(agent.model) == weights(model)
    env = Clock(Discrete(3), 2)
    learn(agent, env, env.reset(0), 3)
    assert weights(agent.model) != weights(model)
    with pytest.raises(Mistake, match="holds no ppo for this env"):
        config.make(Clock(Box(-1, 1, (2,))).spec, 0)


def test_weights_of_another_network_are_refused():
    spec = Clock(Discrete(3)).spec
    state = small("ppo").make(spec, 0).state_dict()
    other = small("ppo", policy_kwargs={"net_arch": (9,)}).make(spec, 0)
    with pytest.raises(Mistake, match="the saved weights do not fit this network"):
        other.load_state_dict(state)


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_reward_that_is_no_number_stops_the_learning_before_it_harms(name):
    env = Clock(Discrete(3))
    agent: Any = small(name).make(env.spec, 0)
    trajectory = collect(play(env, agent, env.reset(0)), 8)
    reward = trajectory.step.reward.copy()
    reward[4] = np.nan
    before = plain(agent.state_dict())
    with pytest.raises(NonFinite, match="a reward is not finite"):
        agent.learn(trajectory._replace(step=trajectory.step._replace(reward=reward)))
    assert plain(agent.state_dict()) == before


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ["a2c", "ppo", "sac", "dqn"])
def test_loss_that_is_no_number_is_told(name):
    env = Clock(space_for(name))
    given = HYPERPARAMETERS[name] | {"learning_rate": 1e30}
    agent: Any = small(name, hyperparameters=given).make(env.spec, 0)
    with pytest.raises(NonFinite):
        learn(agent, env, env.reset(0), 20)


@pytest.mark.parametrize("name", ["cartpole/sb3_ppo", "cartpole/sb3_dqn", "pendulum/sb3_sac"])
def test_interrupted_run_in_a_real_world_goes_on_as_if_nothing_had_happened(name, tmp_path):
    flags = ["--env.num-envs=2", "--recording.max-steps=5", "--evaluation.num-episodes=2"]
    flags += ["--evaluation.max-steps=9", "--checkpoint.every=40", "--agent.hyperparameters"]
    if name.endswith("ppo"):
        flags += ["n_steps", "16", "batch_size", "32", "n_epochs", "2"]
    else:
        flags += ["learning_starts", "50", "batch_size", "4", "train_freq", "4"]
        flags += ["gradient_steps", "1"]

    def trained(num_steps: int, after: Any = None) -> Any:
        experiment = config.load(name, [*flags, f"--num-steps={num_steps}"])
        training = Training(experiment, lambda said: None)
        if after is None:
            folder = run.create(experiment, training.env.spec, tmp_path)
        else:
            folder = after
            training.restore(checkpoint.newest(folder.checkpoints, pytest.fail)[1])
        assert training.run(folder) == 0
        return training

    straight = trained(150)
    first = trained(100)
    again = trained(150, first.folder)
    assert plain(again.agent.state_dict()) == plain(straight.agent.state_dict())
    assert plain(first.agent.state_dict()) != plain(straight.agent.state_dict())
    assert list(again.folder.recordings.glob("*.mp4"))
    assert "train/n_updates" in (again.folder.folder / "metrics.jsonl").read_text()
    assert "eval/mean_reward" in (again.folder.folder / "metrics.jsonl").read_text()
