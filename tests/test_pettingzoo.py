"""Laws of `envs/pettingzoo.py`: PettingZoo's own tests, the way there and back, mistakes."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pettingzoo
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from pettingzoo.utils.wrappers import TerminateIllegalWrapper

from envs.pettingzoo import AsPettingZoo, Config, PettingZooEnv
from rlplay import config
from rlplay.core import Array, Mistake, Step
from rlplay.game import GameEnv


def games() -> dict[str, Any]:
    """Return the rules of every env that has some."""
    plugins = {name: config.plugin("envs", name).Config for name in config.names("envs")}
    return {name: kind().rules() for name, kind in plugins.items() if hasattr(kind, "rules")}


GAMES = games()
every_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
FIELDS = ("action_mask", "player", "reward", "score", "terminated", "truncated", "discount")


class Elimination(pettingzoo.AECEnv):
    """Three agents in turn go on (5) or give up (6), and then lose 1 while the others win 0.5. The
    last one ends the game, and so does its `limit` of moves, cutting it short. Shows the moves."""

    metadata = {"name": "elimination"}  # noqa: RUF012
    same = True  # what all agents see
    masked = True

    def __init__(self, limit: int = 20, legal: int = 1) -> None:
        super().__init__()
        self.possible_agents = ["a", "b", "c"]
        self.limit, self.legal = limit, legal
        self.seeds: list[int | None] = []

    def observation_space(self, agent):
        parts = {"observation": Box(0, 99, (2 if self.same or agent == "a" else 3,), np.float32)}
        return Dict(parts | ({"action_mask": Box(0, 1, (2,), np.int8)} if self.masked else {}))

    def action_space(self, agent):
        return Discrete(2, start=5)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.agents = self.possible_agents[:]
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection, self.actions = "a", []

    def observe(self, agent):
        seen = np.array([len(self.actions), self.possible_agents.index(agent)], np.float32)
        mask = np.full(2, agent == self.agent_selection and self.legal, np.int8)
        return {"observation": seen, "action_mask": mask}

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            return self._was_dead_step(action)
        assert action in (5, 6)
        self.actions.append(action)
        self._cumulative_rewards[agent] = 0
        self._clear_rewards()
        order = self.agents[self.agents.index(agent) + 1 :] + self.agents
        if action == 6:
            self.rewards = {a: -1.0 if a == agent else 0.5 for a in self.agents}
            self.terminations[agent] = True
            if len(self.agents) == 2:
                self.terminations = dict.fromkeys(self.agents, True)
        elif len(self.actions) == self.limit:
            self.truncations = dict.fromkeys(self.agents, True)
        self.agent_selection = order[0]
        self._accumulate_rewards()
        self._deads_step_first()


def choose(mask: Array, random: np.random.Generator) -> Array:
    """Return one legal action for each env, [N] int64."""
    return np.where(mask, random.random(mask.shape), -1).argmax(1)


def assert_same(left: Step, right: Step) -> None:
    for name in FIELDS:
        one, other = getattr(left, name), getattr(right, name)
        assert one.dtype == other.dtype, name
        assert np.array_equal(one, other), name


def play_both(one: Any, other: Any, num_steps: int, seed: int = 0) -> int:
    """Play two envs with the same random actions; return how many episodes ended."""
    random = np.random.default_rng(seed)
    left, right = one.reset(0), other.reset(0)
    num_ends = 0
    for _ in range(num_steps):
        assert_same(left, right)
        assert np.array_equal(left.observation, right.observation)
        num_ends += int(left.done.sum())
        action = choose(left.action_mask, random)
        left, right = one.step(action), other.step(action)
    return num_ends


# --- games as PettingZoo envs --------------------------------------------------------------------


@every_game
@pytest.mark.filterwarnings("ignore")  # api_test would rather have no Dict and no empty board
def test_every_game_is_a_pettingzoo_env(game):
    from pettingzoo.test import api_test, seed_test  # these print, and warn when imported

    api_test(AsPettingZoo(game, "rgb_array"), num_cycles=1000)
    seed_test(lambda: AsPettingZoo(game), num_cycles=500)


@pytest.mark.filterwarnings("ignore")
def test_pettingzoos_test_sees_a_bridge_that_is_broken():
    """The negative control of the law above."""
    from pettingzoo.test import api_test

    class Forgetful(AsPettingZoo):
        def _accumulate_rewards(self):
            pass

    with pytest.raises(AssertionError, match="accumulated"):
        api_test(Forgetful(GAMES["hex"]))  # where no game is drawn


@every_game
def test_game_that_goes_there_and_comes_back_is_the_same(game):
    back = PettingZooEnv(game.name, [AsPettingZoo(game) for _ in range(3)])
    assert play_both(back, GameEnv(game, 3), min(3 * game.max_moves, 250))


def test_each_agent_sees_the_board_from_its_side_and_only_the_mover_has_a_mask():
    world = AsPettingZoo(GAMES["tictactoe"])
    world.reset()
    world.step(4)
    mine, others = world.observe("player_0"), world.observe("player_1")
    assert world.agent_selection == "player_1"
    assert np.argwhere(mine["observation"]).tolist() == [[1, 1, 0]]
    assert np.argwhere(others["observation"]).tolist() == [[1, 1, 1]]
    assert not mine["action_mask"].any()
    assert others["action_mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_end_of_a_game_is_told_to_both_agents():
    world = AsPettingZoo(GAMES["tictactoe"])
    world.reset()
    for action in (0, 3, 1, 4, 2):
        assert not any(world.terminations.values())
        world.step(action)
    told = {}
    for agent in world.agent_iter():
        seen, reward, terminated, truncated, _ = world.last()
        told[agent] = (reward, terminated, truncated)
        assert not seen["action_mask"].any()
        world.step(None)
    assert told == {"player_0": (1, True, False), "player_1": (-1, True, False)}
    assert world.agents == []


def test_game_is_told_and_drawn():
    game = GAMES["tictactoe"]
    text, picture = AsPettingZoo(game, "ansi"), AsPettingZoo(game, "rgb_array")
    for world in (text, picture, none := AsPettingZoo(game)):
        world.reset()
        world.step(4)
    assert text.render() == game.show(text.board)
    assert (picture.render() == game.draw(text.board, 4)).all()
    assert none.render() is None


def test_illegal_move_raises_or_loses_under_pettingzoos_wrapper():
    world = AsPettingZoo(GAMES["tictactoe"])
    world.reset()
    world.step(4)
    with pytest.raises(ValueError, match=r"4 \(b2\) is not on board 0 of tictactoe"):
        world.step(4)
    strict = TerminateIllegalWrapper(AsPettingZoo(GAMES["tictactoe"]), illegal_reward=-1)
    strict.reset()
    strict.step(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strict.step(4)
    assert strict.terminations == {"player_0": True, "player_1": True}
    assert strict.rewards == {"player_0": 0, "player_1": -1}


# --- PettingZoo envs as ours ---------------------------------------------------------------------


def test_their_connect_four_is_ours():
    theirs = Config(id="connect_four_v3", num_envs=4).make()
    assert play_both(theirs, GameEnv(GAMES["connect_four"], 4), 300) > 20


def test_their_tictactoe_is_ours():
    theirs = Config(id="tictactoe_v3", num_envs=4).make()
    assert play_both(theirs, GameEnv(GAMES["tictactoe"], 4), 150) > 40


def test_world_with_options_is_made_with_them():
    env = Config(id="go_v5", options={"board_size": 5}).make()
    assert env.spec.num_actions == 26
    assert env.reset(0).observation.shape == (1, 17, 5, 5)


@pytest.mark.parametrize("id", ["tictactoe", "tictactoe_v3", "tictactoe-v3", "classic/tictactoe"])
def test_id_may_leave_out_its_folder_and_its_version(id):
    assert Config(id=id).make().spec.num_actions == 9
    assert Config(id=id).world in ("tictactoe", "tictactoe-v3")


def test_agents_out_of_the_game_are_passed_over_and_rewards_are_by_player():
    env = PettingZooEnv("elimination", [Elimination()])
    steps = [env.reset(0)]
    for action in (0, 1, 0, 0, 1, 1, 0):  # b gives up, then c; what follows is a new episode
        steps.append(env.step(np.array([action])))
    assert [step.player[0] for step in steps[:5]] == [0, 1, 2, 0, 2]
    assert steps[2].reward[0].tolist() == [0.5, -1, 0.5]
    assert not steps[3].reward.any()
    assert steps[5].reward[0].tolist() == [0.5, 0, -1]
    assert [step.terminated[0] for step in steps] == [False] * 5 + [True, False, False]
    assert [step.observation[0, 0] for step in steps] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert [step.player[0] for step in steps[6:]] == [0, 1]
    assert not steps[6].reward.any()


def test_world_cut_short_is_truncated():
    env = PettingZooEnv("elimination", [Elimination(limit=3)])
    env.reset(0)
    for expected in (False, False, True, False):
        step = env.step(np.array([0]))
        assert (step.truncated[0], step.terminated[0]) == (expected, False)
        assert step.discount[0] == 1


def test_every_episode_of_every_world_has_a_seed_of_its_own():
    worlds = [Elimination(limit=2) for _ in range(2)]
    env = PettingZooEnv("elimination", list(worlds))
    for _ in range(2):
        env.reset(0)
        for _ in range(5):
            env.step(np.zeros(2, np.int64))
    first, second = (world.seeds for world in worlds)
    assert len(set(first + second)) == len(first + second) // 2 == 4
    assert first[:2] == first[2:]
    assert None not in first


def test_illegal_action_raises_and_nothing_is_lost():
    env = Config(id="connect_four_v3", num_envs=2).make()
    step = env.reset(0)
    for column in (0, 0, 0, 0, 0, 0):
        step = env.step(np.array([column, 3]))
    with pytest.raises(ValueError, match="actions must be legal, and 0 is not in env 0"):
        env.step(np.array([0, 2]))
    assert env.step(np.array([1, 2])).player.tolist() == [1, 1]
    assert step.action_mask.tolist() == [[False] + [True] * 6, [True] * 3 + [False] + [True] * 3]


def test_world_that_leaves_no_action_legal_raises():
    with pytest.raises(ValueError, match="stuck goes on and leaves no action legal"):
        PettingZooEnv("stuck", [Elimination(legal=0)]).reset(0)


def test_world_that_does_not_come_back_starts_anew_with_a_warning():
    class Wild(Elimination):
        def observe(self, agent):
            part = super().observe(agent)
            part["observation"] = np.random.default_rng().random(2, np.float32)
            return part

    env = PettingZooEnv("wild", [Wild()])
    env.reset(0)
    env.step(np.array([0]))
    state = env.state_dict()
    with pytest.warns(UserWarning, match="env 0 of wild did not come back"):
        step = env.load_state_dict(state)
    assert step.player[0] == 0
    assert not env.state_dict()["lengths"].any()


def test_saved_world_of_many_is_restored_with_as_many():
    env = Config(num_envs=2).make()
    env.reset(0)
    state = env.state_dict()
    with pytest.raises(Mistake, match=r"saved with 2 envs: set env\.num_envs=2"):
        Config(num_envs=3).make().load_state_dict(state)
    with pytest.raises(RuntimeError, match="call reset first"):
        Config().make().step(np.zeros(1, np.int64))


def test_picture_is_drawn_only_where_it_was_asked_for():
    env = Config(id="tictactoe_v3", options={"screen_height": 100}).make(render=True)
    env.reset(0)
    before = env.render()
    env.step(np.array([4]))
    assert before.shape == (100, 100, 3)
    assert (env.render() != before).any()
    env.close()
    with pytest.raises(RuntimeError, match="render=True"):
        Config(id="tictactoe_v3").make().render()


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"id": "tictacto"}, r"no turn-based env\.id=tictacto; did you mean 'tictactoe-v3'\?"),
        ({"id": "connect_four_v99"}, "did you mean 'connect_four-v3'"),
        ({"id": "monopoly"}, r"no turn-based env\.id=monopoly; choose from .*tictactoe-v3.*go-v5"),
        ({"id": "rps_v2"}, "rps_v2 shows no action masks"),
        ({"id": "go_v5", "options": {"size": 9}}, "go_v5 cannot be made with {'size': 9}: .*size"),
        ({"id": "elsewhere/together"}, "elsewhere/together is a parallel env: only those"),
        ({"id": "elsewhere/missing"}, "module that is not installed: pip install no_such_module"),
    ],
)
def test_mistake_is_one_clear_sentence(settings, sentence, monkeypatch):
    together = pettingzoo.EnvSpec("elsewhere/together-v0", Elimination)
    missing = pettingzoo.EnvSpec("elsewhere/missing-v0", "no_such_module:env")
    monkeypatch.setitem(pettingzoo.parallel_registry, together.id, together)
    monkeypatch.setitem(pettingzoo.aec_registry, missing.id, missing)
    with pytest.raises(Mistake, match=sentence) as error:
        Config(**settings).make()
    assert "\n" not in str(error.value)


def test_agents_must_be_alike():
    class Unlike(Elimination):
        same = False

    class Unmasked(Elimination):
        masked = False

    class Continuous(Elimination):
        def action_space(self, agent):
            return Box(0, 1, (1,))

    for kind, sentence in [
        (Unlike, "the agents of world see or do different kinds of things"),
        (Unmasked, "world shows no action masks"),
        (Continuous, "only Discrete ones can be played"),
    ]:
        with pytest.raises(Mistake, match=sentence):
            PettingZooEnv("world", [kind()])


def test_every_game_of_the_house_is_there():
    assert {"tictactoe", "connect_four", "othello", "gomoku", "hex", "breakthrough"} <= set(GAMES)
    assert AsPettingZoo(GAMES["hex"]).metadata["name"] == GAMES["hex"].name == "hex-7x7"
