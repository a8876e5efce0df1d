"""Laws of `envs/gymnasium.py`: autoreset, seeds, saving, spaces, mistakes, and the way back."""

import subprocess
import sys
import warnings
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from envs.gymnasium import AsGymnasium, Config, GymnasiumEnv
from rlplay.core import Env, Mistake, Spec, Step


class Counter(gymnasium.Env):
    """Shows how many steps it took and ends at `end`. Its actions are 5, 6 and 7, and 6 earns 1.
    The seeds of all episodes and the actions of the last one are kept for the test to see."""

    observation_space = spaces.Box(0, 99, (1,), np.float32)
    action_space = spaces.Discrete(3, start=5)

    def __init__(self, end: int = 3, cut: bool = False) -> None:
        self.end, self.cut = end, cut
        self.seeds: list[int | None] = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seeds.append(seed)
        self.actions = []
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.actions.append(action)
        count = len(self.actions)
        over = count >= self.end
        earned = float(action == 6)
        return np.full(1, count, np.float32), earned, over and not self.cut, over and self.cut, {}


class Wild(Counter):
    """Goes its own way, whatever the seed."""

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.random.default_rng().random(1, np.float32), {}


class Picture(gymnasium.Env):
    """Shows one constant of any space; has actions of any space."""

    def __init__(self, space: spaces.Space, actions: spaces.Space | None = None) -> None:
        self.observation_space = space
        self.action_space = actions or spaces.Discrete(2)
        self.shown = space.sample()

    def reset(self, *, seed=None, options=None):
        return self.shown, {}

    def step(self, action):
        return self.shown, 0.0, False, False, {}


@pytest.fixture(autouse=True, scope="module")
def _registered() -> Iterator[None]:
    ids = {"Counter-v0": Counter, "Wild-v0": Wild}
    for id, world in ids.items():
        gymnasium.register(id, entry_point=world)
    gymnasium.register("OpenlyWild-v0", entry_point=Wild, nondeterministic=True)
    yield
    for id in [*ids, "OpenlyWild-v0"]:
        del gymnasium.registry[id]


def actions_of(env: GymnasiumEnv, generator: np.random.Generator, step: Step) -> np.ndarray:
    if env.spec.num_actions == 0:
        shape = (env.spec.num_envs, *env.spec.action_space.shape)
        return generator.uniform(-1, 1, shape).astype(np.float32)
    return np.array([generator.choice(np.flatnonzero(mask)) for mask in step.action_mask])


def play(env: GymnasiumEnv, step: Step, num_steps: int, seed: int = 0) -> list[Step]:
    generator = np.random.default_rng(seed)
    steps = []
    for _ in range(num_steps):
        step = env.step(actions_of(env, generator, step))
        steps.append(step)
    return steps


def same(a: Step, b: Step) -> bool:
    return all(
        x.dtype == y.dtype and np.array_equal(x, y) for x, y in zip(a[:8], b[:8], strict=True)
    )


def show(observation_space: spaces.Space, key: str = "", **worlds: spaces.Space) -> GymnasiumEnv:
    config = Config(id="Picture", observation_key=key)
    return GymnasiumEnv(config, [Picture(observation_space, **worlds)])


# --- autoreset ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [False, True])
def test_action_after_the_end_is_ignored_and_starts_a_new_episode(cut):
    env = Config(id="Counter-v0", options={"end": 3, "cut": cut}).make()
    world: Counter = env._envs[0].unwrapped  # type: ignore[assignment]
    steps = [env.reset(0), *(env.step(np.array([1])) for _ in range(8))]
    assert [s.observation[0, 0] for s in steps] == [0, 1, 2, 3, 0, 1, 2, 3, 0]
    assert [s.reward[0, 0] for s in steps] == [0, 1, 1, 1, 0, 1, 1, 1, 0]
    end = [False, False, False, True, False, False, False, True, False]
    never = [False] * 9
    assert [s.terminated[0] for s in steps] == (never if cut else end)
    assert [s.truncated[0] for s in steps] == (end if cut else never)
    assert [s.discount[0] for s in steps] == [0 if e and not cut else 1 for e in end]
    assert world.actions == []
    assert len(world.seeds) == 3


def test_envs_side_by_side_end_on_their_own():
    counters = [gymnasium.make("Counter-v0", end=end) for end in (1, 2)]
    env = GymnasiumEnv(Config(id="Counter-v0"), counters)
    steps = [env.reset(0), *(env.step(np.array([0, 0])) for _ in range(6))]
    assert [s.observation[:, 0].tolist() for s in steps] == [
        [0, 0], [1, 1], [0, 2], [1, 0], [0, 1], [1, 2], [0, 0],
    ]  # fmt: skip


def test_own_time_limit_truncates():
    env = Config(id="Counter-v0", max_steps=2, options={"end": 9}).make()
    env.reset(0)
    step = play(env, env.reset(0), 2)[-1]
    assert step.truncated[0]
    assert not step.terminated[0]
    assert step.discount[0] == 1


def test_end_at_the_time_limit_is_an_end():
    env = Config(id="Counter-v0", max_steps=3, options={"end": 3}).make()
    step = play(env, env.reset(0), 3)[-1]
    assert (step.terminated[0], step.truncated[0], step.discount[0]) == (True, False, 0)


def test_steps_already_handed_out_never_change():
    env = Config(num_envs=2).make()
    steps = [env.reset(0)]
    copies = [Step(*(np.copy(leaf) for leaf in steps[0][:8]))]
    for _ in range(40):
        steps.append(env.step(np.array([0, 1])))
        copies.append(Step(*(np.copy(leaf) for leaf in steps[-1][:8])))
    assert all(same(a, b) for a, b in zip(steps, copies, strict=True))


# --- seeds -------------------------------------------------------------------------------------

HASH = """
import hashlib, numpy as np
from envs.gymnasium import Config
env = Config(num_envs=2).make()
digest = hashlib.sha256(env.reset(7).observation.tobytes())
for t in range(100):
    digest.update(env.step(np.array([t % 2, 1])).observation.tobytes())
print(digest.hexdigest())
"""


def test_same_seed_is_the_same_play_in_two_processes():
    outputs = [subprocess.check_output([sys.executable, "-c", HASH]) for _ in range(2)]
    assert outputs[0] == outputs[1]
    other = subprocess.check_output([sys.executable, "-c", HASH.replace("(7)", "(8)")])
    assert other != outputs[0]


@pytest.mark.parametrize("seed", [0, 3, np.int64(3), np.uint32(3), 2**40])
def test_same_seed_is_the_same_play_in_two_instances(seed):
    first, second = Config(num_envs=2).make(), Config(num_envs=2).make()
    second.reset(99)
    a, b = first.reset(seed), second.reset(int(seed))
    assert same(a, b)
    for x, y in zip(play(first, a, 100), play(second, b, 100), strict=True):
        assert same(x, y)


def test_every_episode_of_every_env_has_its_own_seed():
    env = Config(id="Counter-v0", num_envs=3, options={"end": 1}).make()
    play(env, env.reset(0), 20)
    seeds = [seed for each in env._envs for seed in each.unwrapped.seeds]  # type: ignore[attr-defined]
    assert len(seeds) == len(set(seeds)) == 33


def test_envs_side_by_side_differ():
    observation = Config(num_envs=4).make().reset(0).observation
    assert len(np.unique(observation, axis=0)) == 4


# --- saving ------------------------------------------------------------------------------------

SAVED = [
    Config(num_envs=3),
    Config(id="FrozenLake-v1", num_envs=2),
    Config(id="LunarLander-v3", num_envs=2),
    Config(id="MiniGrid-Dynamic-Obstacles-5x5-v0", num_envs=2, observation_key="image"),
    Config(id="Taxi-v4", num_envs=2),
    Config(id="Counter-v0", num_envs=2),
    Config(id="Pendulum-v1", num_envs=2),
]


@pytest.mark.parametrize("config", SAVED, ids=lambda config: config.id)
def test_restored_env_goes_on_bitwise_as_if_it_had_not_stopped(config):
    env = config.make()
    step = env.reset(0)
    for part in range(4):  # stops at several moments of the episodes
        step = play(env, step, 67 + part, seed=part)[-1]
        assert env.spec.exact_resume
        other = config.make()
        other.reset(1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            restored = other.load_state_dict(env.state_dict())
        assert same(step, restored)
        going_on = play(env, step, 150, seed=part)
        for a, b in zip(going_on, play(other, restored, 150, seed=part), strict=True):
            assert same(a, b)
        step = going_on[-1]


@pytest.mark.parametrize("num_steps", range(5))
def test_env_is_restored_at_every_moment_of_an_episode(num_steps):
    config = Config(id="Counter-v0", options={"cut": True})
    env, other = config.make(), config.make()
    steps = [env.reset(0), *play(env, env.reset(0), num_steps)]
    assert same(steps[-1], other.load_state_dict(env.state_dict()))
    assert other._envs[0].unwrapped.actions == env._envs[0].unwrapped.actions  # type: ignore[attr-defined]
    assert same(env.step(np.array([1])), other.step(np.array([1])))


def test_world_that_ignores_its_seed_starts_a_new_episode_and_says_so():
    env, other = Config(id="Wild-v0").make(), Config(id="Wild-v0").make()
    env.reset(0)
    with pytest.warns(UserWarning, match="did not come back"):
        step = other.load_state_dict(env.state_dict())
    assert not step.done[0]


def test_world_registered_as_nondeterministic_does_not_promise_exact_resume():
    env, other = Config(id="OpenlyWild-v0").make(), Config(id="OpenlyWild-v0").make()
    play(env, env.reset(0), 2)
    assert not env.spec.exact_resume
    state = env.state_dict()
    assert len(state["actions"]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_state_dict(state)


def test_state_of_another_number_of_envs_is_refused():
    env = Config(num_envs=2).make()
    env.reset(0)
    with pytest.raises(Mistake, match="num_envs=2"):
        Config(num_envs=3).make().load_state_dict(env.state_dict())


# --- spaces ------------------------------------------------------------------------------------


def test_taxi_masks_are_those_of_the_game():
    env = Config(id="Taxi-v4", num_envs=2).make()
    taxi = gymnasium.make("Taxi-v4").unwrapped
    for step in play(env, env.reset(0), 250):
        for i in range(2):
            legal = taxi.action_mask(int(step.observation[i]))  # type: ignore[attr-defined]
            assert step.action_mask[i].tolist() == legal.astype(bool).tolist()
    assert not step.action_mask.all()


@pytest.mark.parametrize("bad", [-1, 3])
def test_action_out_of_range_raises(bad):
    env = Config(id="Counter-v0", num_envs=2).make()
    env.reset(0)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        env.step(np.array([0, bad]))
    with pytest.raises(ValueError, match="whole numbers"):
        env.step(np.array([0]))


def test_actions_count_from_zero_whatever_the_world_counts_from():
    env = Config(id="Counter-v0").make()
    assert env.spec.action_space == spaces.Discrete(3)
    env.reset(0)
    env.step(np.array([2]))
    assert env._envs[0].unwrapped.actions == [7]  # type: ignore[attr-defined]


def test_box_actions_are_passed_on():
    env = Config(id="Pendulum-v1", num_envs=2).make()
    step = env.reset(0)
    assert step.action_mask.shape == (2, 0)
    step = env.step(np.array([[2.0], [-2.0]], np.float32))
    assert step.reward.shape == (2, 1)
    assert (step.reward < 0).all()
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        env.step(np.zeros(2, np.float32))


def test_mask_without_a_legal_action_is_refused_while_the_episode_lasts():
    env = show(spaces.Box(0, 1, (2,)))
    nothing = {"action_mask": np.zeros(2, np.int8)}
    zeros = np.zeros(2)
    assert env._show([(zeros, 0.0, True, False, nothing)]).action_mask.all()
    with pytest.raises(ValueError, match="no action legal"):
        env._show([(zeros, 0.0, False, False, nothing)])


def test_picture_has_its_channels_first():
    env = Config(id="MiniGrid-Empty-5x5-v0", observation_key="image", num_envs=2).make()
    assert env.spec.observation_space == spaces.Box(0, 255, (3, 7, 7), np.uint8)
    step = env.reset(0)
    assert step.observation.shape == (2, 3, 7, 7)
    raw = gymnasium.make("minigrid:MiniGrid-Empty-5x5-v0").reset(seed=0)[0]["image"]
    assert (step.observation[0] == raw.transpose(2, 0, 1)).all()


@pytest.mark.parametrize("shape", [(4, 84, 84), (2, 3, 3), (4, 4, 4), (7, 3), (8, 8, 12)])
def test_other_boxes_are_left_as_they_are(shape):
    env = show(spaces.Box(0, 1, shape, np.float64))
    step = env.reset(0)
    assert step.observation.dtype == np.float64
    assert (step.observation[0] == env._envs[0].shown).all()  # type: ignore[attr-defined]


def test_picture_is_brought_to_its_size_by_the_mean_over_areas():
    random = np.random.default_rng(0)
    raw = random.integers(0, 256, (60, 80, 3), np.uint8)
    world = Picture(spaces.Dict(screen=spaces.Box(0, 255, raw.shape, np.uint8)))
    world.shown = {"screen": raw}
    env = GymnasiumEnv(Config(id="Picture", observation_key="screen", frame_size=20), [world])
    assert env.spec.observation_space == spaces.Box(0, 255, (3, 20, 20), np.uint8)
    seen = env.reset(0).observation[0]
    mean = raw.reshape(20, 3, 20, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(seen - mean).max() <= 1  # rounded twice
    with pytest.raises(Mistake, match=r"leave env\.frame_size out"):
        Config(frame_size=20).make()


def test_discrete_observations_count_from_zero():
    env = show(spaces.Discrete(4, start=-1))
    assert env.spec.observation_space == spaces.Discrete(4)
    step = env.reset(0)
    assert step.observation.dtype == np.int64
    assert step.observation.tolist() == [env._envs[0].shown + 1]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple([spaces.Discrete(3), spaces.Discrete(5, start=-2), spaces.Discrete(2)]),
        spaces.MultiDiscrete([[3, 2], [4, 1]], start=[[0, 1], [-1, 7]]),
        spaces.MultiBinary([2, 3]),
        spaces.Tuple([spaces.MultiBinary(2), spaces.Tuple([spaces.Discrete(4)])]),
    ],
    ids=str,
)
def test_observation_of_discrete_parts_is_one_discrete_number_row_by_row(space):
    env = show(space)
    shown = env.spec.observation_space
    assert isinstance(shown, spaces.Discrete)
    seen: dict[int, str] = {}
    for _ in range(2000):
        env._envs[0].shown = sample = space.sample()  # type: ignore[attr-defined]
        step = env.reset(0)
        assert step.observation.dtype == np.int64
        assert shown.contains(step.observation[0])
        assert seen.setdefault(int(step.observation[0]), str(sample)) == str(sample)
    assert len(seen) == shown.n  # each number is one observation, and none is left over


def test_last_part_counts_fastest():
    space = spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)])
    env = show(space)
    assert env.spec.observation_space == spaces.Discrete(32 * 11 * 2)
    env._envs[0].shown = (20, 1, 0)  # type: ignore[attr-defined]
    assert env.reset(0).observation.tolist() == [20 * 22 + 2]


def test_spaces_that_cannot_be_played_are_mistakes():
    box = spaces.Box(0, 1, (2,))
    picture = spaces.Box(0, 1, (5, 6, 3))
    with pytest.raises(Mistake, match="one of left, right"):
        show(spaces.Dict(left=box, right=picture))
    with pytest.raises(Mistake, match="one of left, right"):
        show(spaces.Dict(left=box, right=spaces.Text(5)))
    with pytest.raises(Mistake, match="one of left, right"):
        show(spaces.Dict(left=box, right=box), "up")
    with pytest.raises(Mistake, match="does not show a Dict"):
        show(box, "left")
    with pytest.raises(Mistake, match="only Box and Discrete"):
        show(spaces.Tuple([spaces.Discrete(2), box]))
    with pytest.raises(Mistake, match="too many states"):
        show(spaces.MultiBinary(100))
    with pytest.raises(Mistake, match="only Discrete, MultiDiscrete, MultiBinary and Box"):
        show(box, actions=spaces.Text(5))


def test_dict_of_numbers_is_one_vector_in_its_order():
    inner = spaces.Dict(speed=spaces.Box(-1, 1, (2,)))
    env = show(spaces.Dict(kind=spaces.Discrete(3), goal=spaces.Box(0, 9, (1,)), arm=inner))
    env._envs[0].shown = {  # type: ignore[attr-defined]
        "kind": 1,
        "goal": np.float32([7]),
        "arm": {"speed": np.float32([0.5, -0.5])},
    }
    step, space = env.reset(0), env.spec.observation_space
    assert isinstance(space, spaces.Box)
    assert space.shape == (6,)
    assert step.observation.tolist() == [[0, 1, 0, 7, 0.5, -0.5]]


@pytest.mark.parametrize(
    ("space", "nvec", "given"),
    [
        (spaces.MultiDiscrete([3, 2], start=[1, -5]), [3, 2], [3, -5]),
        (spaces.MultiBinary(2), [2, 2], [1, 0]),
    ],
    ids=str,
)
def test_several_choices_at_once_are_counted_from_zero(space, nvec, given):
    env = show(spaces.Box(0, 1, (2,)), actions=space)
    assert env.spec.action_space == spaces.MultiDiscrete(nvec)
    assert env.spec.num_actions == 0
    step = env.reset(0)
    assert step.action_mask.shape == (1, 0)
    taken = []
    env._envs[0].step = lambda move: (taken.append(move), (np.zeros(2), 0, False, False, {}))[1]  # type: ignore[method-assign]
    env.step(np.array([[nvec[0] - 1, 0]]))
    assert taken[0].tolist() == given
    for wrong in ([[nvec[0], 0]], [[-1, 0]], [[0.5, 0]], [0, 0]):
        with pytest.raises(ValueError, match="must be"):
            env.step(np.array(wrong))


def test_observation_of_another_shape_than_promised_raises():
    env = show(spaces.Box(0, 1, (2,)))
    env._envs[0].shown = np.zeros(1, np.float32)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="promises"):
        env.reset(0)


# --- mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Config(id="CartPol-v1"), "did you mean 'CartPole-v1'"),
        (Config(id="CartPole"), "did you mean .*'CartPole-v1'"),
        (Config(id="CartPole-v7"), "did you mean .*'CartPole-v1'"),
        (Config(id="MiniGrid-Emty-5x5-v0"), "did you mean 'MiniGrid-Empty-5x5-v0'"),
        (Config(id="no spaces"), "no env.id=no spaces"),
        (Config(id=""), "no env.id="),
        (Config(id="LunarLander-v2"), "LunarLander-v3"),
        (Config(id="ALE/Pong-v5"), "name: atari"),
        (Config(id="no_such_module:World-v0"), "cannot import 'no_such_module'"),
        (Config(id="CartPole-v1", options={"color": "red"}), "color"),
        (Config(id="FrozenLake-v1", options={"map_name": "9x9"}), "9x9"),
        (Config(id="CartPole-v1", options={"render_mode": "human"}), "render_mode"),
    ],
)
def test_mistake_is_one_sentence_that_helps(config, says):
    with pytest.raises(Mistake, match=says) as caught:
        config.make(render=True)
    assert "\n" not in str(caught.value)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid", None)
    with pytest.raises(Mistake, match="pip install minigrid"):
        Config(id="MiniGrid-Empty-5x5-v0").make()
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    monkeypatch.delitem(sys.modules, "vizdoom.gymnasium_wrapper", raising=False)
    with pytest.raises(Mistake, match="pip install vizdoom,"):
        Config(id="VizdoomBasic-v1").make()
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for name in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(Mistake, match=r"pip install .*gymnasium\[box2d\]"):
        Config(id="LunarLander-v3").make()


def test_old_id_is_made_without_noise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Config(id="CartPole-v0").make()


# --- pictures ----------------------------------------------------------------------------------


def test_env_made_to_be_drawn_is_drawn():
    env = Config(num_envs=2).make(render=True)
    env.reset(0)
    picture = env.render()
    assert picture.dtype == np.uint8
    assert picture.shape == (400, 600, 3)
    assert env.spec.frame_rate == 50


def test_env_that_cannot_be_drawn_says_so():
    env = Config().make()
    env.reset(0)
    with pytest.raises(RuntimeError, match="render=True"):
        env.render()
    with pytest.raises(Mistake, match="render_mode"):
        Config(id="Counter-v0").make(render=True)


# --- back to Gymnasium -------------------------------------------------------------------------


class Bandit:
    """An env of the house that Gymnasium knows nothing of: two arms, the second one pays."""

    def __init__(self) -> None:
        self.spec = Spec(1, spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2))

    def reset(self, seed: int) -> Step:
        return Step.at(np.zeros((1, 1), np.float32), 2, action_mask=np.array([[True, False]]))

    def step(self, action: np.ndarray) -> Step:
        over = np.array([False])
        return Step.at(
            np.ones((1, 1), np.float32),
            2,
            reward=np.sign(action[None]).astype(np.float32),
            score=10 * action[None].astype(np.float32),
            terminated=over,
        )

    def render(self) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        return self.reset(0)

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "config", [Config(), Config(id="Counter-v0"), Config(id="Taxi-v4")], ids=lambda c: c.id
)
def test_env_given_back_passes_gymnasiums_own_check(config):
    check_env(AsGymnasium(config.make(), nearest_legal=True))


def test_own_env_passes_gymnasiums_check():
    check_env(AsGymnasium(Bandit(), nearest_legal=True))


def test_given_back_env_keeps_reward_score_and_mask_apart():
    env = AsGymnasium(Bandit(), "rgb_array")
    _, info = env.reset(seed=0)
    assert env.action_space.sample(info["action_mask"]) == 0
    with pytest.raises(ValueError, match="action 1 is illegal here"):
        env.step(1)
    env.nearest_legal = True
    assert env.step(1)[1] == 0
    _, reward, _, _, info = env.step(1)
    assert (reward, info["score"]) == (1.0, 10.0)
    assert env.render().shape == (8, 8, 3)


def test_given_back_env_is_stepped_as_gymnasium_does():
    env = AsGymnasium(Config(id="Counter-v0").make())
    for _ in range(2):
        assert env.reset()[0] == 0
        seen = [env.step(0)[:4] for _ in range(3)]
        assert [(int(s[0][0]), s[2]) for s in seen] == [(1, False), (2, False), (3, True)]
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(0)
    env.reset()
    env.step(0)
    assert env.reset()[0] == 0  # in the middle of an episode


def test_given_back_env_draws_its_episodes_from_its_first_seed():
    def starts(seed) -> list[bytes]:
        env = AsGymnasium(Config().make())
        return [env.reset(seed=s)[0].tobytes() for s in (seed, None, None)]

    assert starts(0) == starts(np.int64(0))
    assert starts(0) != starts(1)
    assert len(set(starts(0))) == 3


def test_only_one_env_with_one_player_is_given_back():
    with pytest.raises(Mistake, match="num_envs=1"):
        AsGymnasium(Config(num_envs=2).make())


def test_gymnasium_env_is_an_env_of_the_house():
    env: Env = Config().make()
    assert env.spec.num_envs == 1
    env.close()


def test_agent_sees_only_the_numbers_that_it_is_to_see():
    whole, part = Config(num_envs=2).make(), Config(num_envs=2, observed=(2, 0)).make()
    seen, some = whole.reset(0), part.reset(0)
    assert part.spec.observation_space.shape == (2,)
    for _ in range(30):
        assert np.array_equal(some.observation, seen.observation[:, [2, 0]])
        assert np.array_equal(some.done, seen.done)
        action = np.array([0, 1])
        seen, some = whole.step(action), part.step(action)
    for id, wrong in (("CartPole-v1", (4,)), ("FrozenLake-v1", (0,))):
        with pytest.raises(Mistake, match=r"are no numbers of"):
            Config(id=id, observed=wrong).make()


class Undrawn(gymnasium.Env):
    """Looks like a world of MuJoCo on a machine without OpenGL."""

    observation_space = spaces.Box(0, 1, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.metadata = {"render_modes": ["rgb_array"]}
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {}

    def render(self):
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")


@pytest.mark.parametrize("module", ["gymnasium.envs.mujoco.ant_v5", "somewhere.else"])
def test_mujoco_without_opengl_is_one_sentence_and_another_worlds_bug_a_traceback(
    module, monkeypatch
):
    monkeypatch.setattr(Undrawn, "__module__", module)
    monkeypatch.setitem(
        gymnasium.registry, "Undrawn-v0", gymnasium.envs.registration.EnvSpec("Undrawn-v0", Undrawn)
    )
    env = Config(id="Undrawn-v0").make(render=True)
    env.reset(0)
    with pytest.raises(Mistake if "mujoco" in module else AttributeError) as said:
        env.render()
    if "mujoco" in module:
        assert "MUJOCO_GL=egl" in str(said.value)
        assert len(str(said.value).splitlines()) == 1
