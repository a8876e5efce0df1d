"""Any turn-based PettingZoo env with action masks as an env of the house, and games the way back.

Terry et al. (2021) call such envs AEC: one agent moves at a time, and each is told the rewards of
all. The worlds are stepped one after the other, each episode with a seed of its own, drawn from
(run seed, env index, episode number); so (episode seed, actions so far) is saved, and played again
to restore a world. Knows no parallel envs, and none whose agents see or do different kinds of
things.
"""

from __future__ import annotations

import operator
import os
import re
import warnings
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import pettingzoo
from gymnasium.spaces import Box, Dict, Discrete, Space
from pettingzoo import AECEnv, EnvSpec
from pettingzoo.env_registry.exceptions import FailedToImport, PettingZooRegistryError

from rlplay.core import Array, Mistake, Range, Spec, State, Step, check_action, nearest
from rlplay.game import BoardGame

World = AECEnv[Any, Any, Any]
MASK, SEEN = "action_mask", "observation"


@dataclass(frozen=True)
class Config:
    name: Literal["pettingzoo"] = "pettingzoo"
    id: str = "connect_four_v3"
    """Any turn-based PettingZoo id with action masks, such as tictactoe_v3, chess_v6 or go_v5; one
    of `classic/` where it says no folder."""
    num_envs: Annotated[int, Range(1)] = 1
    """Worlds side by side."""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Keyword arguments of the world itself, such as `board_size: 9` for go_v5."""

    @property
    def world(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.id.rpartition("/")[2].lower())

    def make(self, *, render: bool = False) -> PettingZooEnv:
        """Build the env. Raises Mistake where the id or its options do not make a world that our
        agents can play."""
        registered = _registered(self.id)
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws here without a screen
        first = self._make_one(registered, {"render_mode": "rgb_array"} if render else {})
        if render and "rgb_array" not in first.metadata.get("render_modes", ()):
            raise Mistake(f"{self.id} cannot be drawn: it has no render_mode rgb_array")
        others = [self._make_one(registered, {}) for _ in range(1, self.num_envs)]
        return PettingZooEnv(self.id, [first, *others])

    def for_evaluation(self) -> Config:
        """Return itself: these worlds are scored as they are trained on."""
        return self

    def _make_one(self, registered: EnvSpec, keywords: dict[str, Any]) -> World:
        given = {**keywords, **self.options}
        try:
            return pettingzoo.make("aec", registered, **given)
        except (ImportError, FailedToImport) as error:
            missing = getattr(error.__cause__ or error, "name", None)
            hint = f"pip install {missing}" if missing else str(error)
            raise Mistake(f"{self.id} needs a module that is not installed: {hint}") from error
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            if not given:
                raise
            raise Mistake(f"{self.id} cannot be made with {given}: {error}") from error


class PettingZooEnv:
    """N AEC envs of one id. A step shows what the agent who moves sees, planes [H, W, C] as
    [C, H, W]; agents that are out of the game are passed over."""

    def __init__(self, id: str, worlds: list[World]) -> None:
        first = worlds[0]
        seen, actions = _spaces(id, first)
        self._planes = isinstance(seen, Box) and len(seen.shape) == 3
        if isinstance(seen, Box) and self._planes:
            low, high = (np.moveaxis(bound, 2, 0) for bound in (seen.low, seen.high))
            seen = Box(low, high, dtype=seen.dtype.type)
        self.spec = Spec(
            num_envs=len(worlds),
            observation_space=seen,
            action_space=Discrete(int(actions.n)),
            num_players=len(first.possible_agents),
            frame_rate=float(first.metadata.get("render_fps", 2)),
            exact_resume=True,
        )
        self._id = id
        self._worlds = worlds
        self._first_action = int(actions.start)
        self._seed = 0
        self._episodes = [0] * len(worlds)
        self._actions: list[list[int]] = [[] for _ in worlds]  # of the current episodes
        self._step: Step | None = None

    def reset(self, seed: int) -> Step:
        """Start episode 0 of every env."""
        self._seed = operator.index(seed)
        self._episodes = [0] * self.spec.num_envs
        return self._show([self._begin(i) for i in range(self.spec.num_envs)])

    def step(self, action: Array) -> Step:
        """Apply `action` [N]. Raises ValueError where one is out of range or illegal."""
        step, action = self._standing(), check_action(action, self.spec)
        illegal = ~step.done & ~step.action_mask[np.arange(len(action)), action]
        if illegal.any():
            i = int(illegal.argmax())
            raise ValueError(f"actions must be legal, and {action[i]} is not in env {i}")
        rewards = []
        for i, over in enumerate(step.done):
            self._episodes[i] += int(over)
            rewards.append(self._begin(i) if over else self._advance(i, int(action[i])))
        return self._show(rewards)

    def render(self) -> Array:
        """Return env 0 as a picture, [H, W, 3] uint8."""
        if getattr(self._worlds[0].unwrapped, "render_mode", None) is None:
            raise RuntimeError("only an env made with render=True can be drawn")
        self._standing()
        return np.array(self._worlds[0].render(), np.uint8)

    def state_dict(self) -> State:
        """Return what each world has been through in its current episode, and what it shows now."""
        return {
            "seed": self._seed,
            "episodes": np.array(self._episodes, np.int64),  # [N]
            "lengths": np.array([len(episode) for episode in self._actions], np.int64),  # [N]
            "actions": np.array([a for episode in self._actions for a in episode], np.int64),
            "observation": self._standing().observation,  # [N, ...], to see that replaying worked
        }

    def load_state_dict(self, state: State) -> Step:
        """Play the saved episodes again and return the step they lead to; with a warning, start a
        world anew that does not come back to where it was. Raises Mistake where there are more."""
        if (n := len(state["episodes"])) != self.spec.num_envs:
            raise Mistake(f"the run was saved with {n} envs: set env.num_envs={n}")
        self._seed = int(state["seed"])
        self._episodes = np.asarray(state["episodes"]).tolist()
        episodes = np.split(np.asarray(state["actions"]), np.cumsum(state["lengths"])[:-1])
        rewards = []
        for i, actions in enumerate(episodes):
            rewards.append(self._begin(i))
            for action in actions.tolist():
                if _over(self._worlds[i]):
                    break
                rewards[i] = self._advance(i, action)
        step, saved = self._show(rewards), np.asarray(state["observation"])
        for i in range(n):
            if not np.array_equal(step.observation[i], saved[i]):
                self._episodes[i] += 1
                rewards[i] = self._begin(i)
                warnings.warn(
                    f"env {i} of {self._id} did not come back to where it was saved from the same "
                    "seed and actions, and starts a new episode",
                    stacklevel=2,
                )
        return self._show(rewards)

    def close(self) -> None:
        for world in self._worlds:
            world.close()

    def _standing(self) -> Step:
        if self._step is None:
            raise RuntimeError("call reset first")
        return self._step

    def _begin(self, i: int) -> list[float]:
        sequence = np.random.SeedSequence(self._seed, spawn_key=(i, self._episodes[i]))
        self._worlds[i].reset(seed=int(sequence.generate_state(1)[0]))
        self._actions[i] = []
        return [0.0] * self.spec.num_players

    def _advance(self, i: int, action: int) -> list[float]:
        world = self._worlds[i]
        self._actions[i].append(action)
        world.step(action + self._first_action)
        rewards = [float(world.rewards.get(agent, 0)) for agent in world.possible_agents]
        while not _over(world) and _out(world, world.agent_selection):
            world.step(None)
        return rewards

    def _show(self, rewards: list[list[float]]) -> Step:
        n, space = self.spec.num_envs, self.spec.observation_space
        observation = np.empty((n, *(space.shape or ())), space.dtype)
        action_mask = np.ones((n, self.spec.num_actions), bool)
        player = np.empty(n, np.int64)
        terminated, truncated = np.zeros(n, bool), np.zeros(n, bool)
        for i, world in enumerate(self._worlds):
            agent = world.agent_selection
            part: Any = world.observe(agent)
            observation[i] = np.moveaxis(part[SEEN], 2, 0) if self._planes else part[SEEN]
            player[i] = world.possible_agents.index(agent)
            if _over(world):
                terminated[i] = not world.agents or any(world.terminations.values())
                truncated[i] = not terminated[i]
            elif np.any(part[MASK]):
                action_mask[i] = part[MASK]
            else:
                raise ValueError(f"{self._id} goes on and leaves no action legal")
        self._step = Step.at(
            observation,
            self.spec.num_actions,
            action_mask=action_mask,
            player=player,
            reward=np.array(rewards, np.float32),
            terminated=terminated,
            truncated=truncated,
        )
        return self._step


class AsPettingZoo(AECEnv[str, Any, Any]):
    """One board of a game of the house, given to PettingZoo. An agent sees the planes as [H, W, C]
    int8 from its own side; the mask of the one who does not move is empty. An illegal move raises
    ValueError: put TerminateIllegalWrapper around it where it is to lose the game."""

    def __init__(
        self, game: BoardGame, render_mode: Literal["rgb_array", "ansi"] | None = None
    ) -> None:
        super().__init__()
        channels, height, width = game.observation_shape
        seen: dict[str, Space[Any]] = {
            SEEN: Box(0, 1, (height, width, channels), np.int8),
            MASK: Box(0, 1, (game.num_actions,), np.int8),
        }
        self.metadata = {
            "name": game.name,
            "render_modes": ["rgb_array", "ansi"],
            "render_fps": 2,
            "is_parallelizable": False,
        }
        self.game = game
        self.render_mode = render_mode
        self.possible_agents = [f"player_{player}" for player in range(game.num_players)]
        self.observation_spaces: dict[str, Space[Any]] = {}
        self.action_spaces: dict[str, Space[Any]] = {}
        for agent in self.possible_agents:
            self.observation_spaces[agent] = Dict(seen)
            self.action_spaces[agent] = Discrete(game.num_actions)
        self.board = game.start(1)
        self.agents = []

    def observation_space(self, agent: str) -> Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Set up the board. There is nothing random in it, and there are no options."""
        self.board, self.last_action = self.game.start(1), -1
        self.agents = self.possible_agents[:]
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = self.agents[int(self.game.player(self.board)[0])]

    def observe(self, agent: str) -> dict[str, Array]:
        board, mask = self.board.copy(), np.zeros(self.game.num_actions, np.int8)
        if agent == self.agent_selection and not self.game.over(board)[0]:
            mask[:] = self.game.action_mask(board)[0]
        board["player"] = self.possible_agents.index(agent)
        planes = np.moveaxis(self.game.observe(board)[0], 0, 2)
        return {SEEN: np.ascontiguousarray(planes, np.int8), MASK: mask}

    def step(self, action: int | None) -> None:
        mover = self.agent_selection
        if self.terminations[mover] or action is None:
            self._was_dead_step(action)
            return
        self.board = self.game.play(self.board, np.array([action]))
        self.last_action = int(action)
        self.agent_selection = self.agents[int(self.game.player(self.board)[0])]
        score, over = self.game.score(self.board)[0].tolist(), bool(self.game.over(self.board)[0])
        self.rewards = dict(zip(self.agents, score, strict=True))
        self.terminations = dict.fromkeys(self.agents, over)
        self._cumulative_rewards[mover] = 0.0
        self._accumulate_rewards()

    def render(self) -> Any:
        """Return the board as a picture [H, W, 3] uint8 or as text; None without a render mode."""
        if self.render_mode == "ansi":
            return self.game.show(self.board)
        return self.game.draw(self.board, self.last_action) if self.render_mode else None

    def close(self) -> None:
        pass


def _out(world: World, agent: Any) -> bool:
    """Return whether an agent is out of the game."""
    return world.terminations[agent] or world.truncations[agent]


def _over(world: World) -> bool:
    return all(_out(world, agent) for agent in world.agents)


def _registered(id: str) -> EnvSpec:
    """Return what PettingZoo has registered as `id`. Raises Mistake."""
    name = id if "/" in id else f"classic/{id}"
    try:
        return pettingzoo.spec("aec", name)
    except PettingZooRegistryError as error:
        parallel = {spec.name for spec in pettingzoo.parallel_registry.values()}
        if re.sub(r"[-_]v\d+$", "", name.rpartition("/")[2]) in parallel:
            raise Mistake(
                f"{id} is a parallel env: only those whose agents move in turn can be played here"
            ) from error
        known = [key.removeprefix("classic/") for key in pettingzoo.aec_registry]
        hint = nearest(id, known) or f"; choose from {', '.join(k for k in known if '/' not in k)}"
        raise Mistake(f"PettingZoo has no turn-based env.id={id}{hint}") from error


def _spaces(id: str, world: World) -> tuple[Space[Any], Discrete]:
    """Return the space of what agents see and of what they do. Raises Mistake where these are not
    the same for all of them, and where there are no masks."""
    spaces = [(world.observation_space(a), world.action_space(a)) for a in world.possible_agents]
    seen, actions = spaces[0]
    if not isinstance(seen, Dict) or not {SEEN, MASK} <= set(seen.spaces):
        raise Mistake(
            f"{id} shows no action masks; only envs that show {SEEN!r} and {MASK!r} can be played"
        )
    if not isinstance(actions, Discrete):
        raise Mistake(f"{id} has {actions} actions; only Discrete ones can be played")
    if any(other != (seen, actions) for other in spaces):
        raise Mistake(f"the agents of {id} see or do different kinds of things")
    return seen[SEEN], actions
