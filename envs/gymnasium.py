"""Any Gymnasium id as an env of the house, and any env of the house as a Gymnasium env.

The worlds are plain Gymnasium envs stepped one after the other. Every episode is reset with a seed
of its own, drawn from (run seed, env index, episode number), so the state of a world is exactly
(episode seed, actions so far): that is what is saved, and it is restored by playing it again.

Observations made of Discrete parts (Tuple, MultiDiscrete, MultiBinary) become one Discrete, row by
row. A Dict of numbers becomes one vector, part by part in its own order, Discrete ones one-hot.
Several choices at once are MultiDiscrete actions, [N, D]. Knows no Atari (`envs/atari.py`
is faster there), no Text and no composite actions. Of `info` it reads only "action_mask".
"""

from __future__ import annotations

import importlib
import operator
import os
import re
import warnings
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from envs import _gymnasium_spaces, _toy_text
from rlplay.core import Array, Env, Mistake, Range, Spec, State, Step, check_action, nearest

Arrival = tuple[Any, Any, bool, bool, dict[str, Any]]
"""What one Gymnasium env returns from `step`: observation, reward, terminated, truncated, info."""

MODULES = {"MiniGrid-": "minigrid", "BabyAI-": "minigrid", "Vizdoom": "vizdoom.gymnasium_wrapper"}
"""Which module registers the ids that begin so."""


@dataclass(frozen=True)
class Config:
    name: Literal["gymnasium"] = "gymnasium"
    id: str = "CartPole-v1"
    """Any Gymnasium id. `my_module:MyWorld-v0` imports my_module first, which registers MyWorld."""
    num_envs: Annotated[int, Range(1)] = 1
    """Worlds side by side."""
    max_steps: Annotated[int, Range(0)] = 0
    """Agent steps after which an episode is truncated; 0 for the limit that the id comes with."""
    observation_key: str = ""
    """Which part of a Dict observation the agent sees; `image` for MiniGrid, `screen` for ViZDoom.
    Empty for all parts as one vector, where none is a picture or a text."""
    observed: tuple[Annotated[int, Range(0)], ...] = ()
    """Which numbers of a vector the agent sees; empty for all. 0, 2 hides CartPole's velocities."""
    frame_size: Annotated[int, Range(0, 1024)] = 0
    """Height and width to which pictures are brought, by the mean over areas, pixels; 0 leaves them
    as they are."""
    options: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Keyword arguments of the world itself, such as `is_slippery: false` for FrozenLake."""

    @property
    def world(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.id.rpartition(":")[2].lower())

    def make(self, *, render: bool = False) -> GymnasiumEnv:
        """Build the env. Raises Mistake where the id or its options do not make a world."""
        registered = _registered(self.id)
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws here without a screen
        first = self._make_one(registered, {"render_mode": "rgb_array"} if render else {})
        if render and "rgb_array" not in first.metadata.get("render_modes", ()):
            raise Mistake(f"{self.id} cannot be drawn: it has no render_mode rgb_array")
        others = [self._make_one(registered, {}) for _ in range(1, self.num_envs)]
        return GymnasiumEnv(self, [first, *others])

    def for_evaluation(self) -> Config:
        """Return itself: these worlds are scored as they are trained on."""
        return self

    def _make_one(self, registered: EnvSpec, keywords: dict[str, Any]) -> gymnasium.Env[Any, Any]:
        limit: Any = self.max_steps or None
        try:
            return gymnasium.make(
                registered, limit, disable_env_checker=True, **keywords, **self.options
            )
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            hint = f": pip install {error.name}" if isinstance(error, ModuleNotFoundError) else ""
            raise Mistake(f"{self.id} cannot be loaded: {error}{hint}") from error
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            if not keywords and not self.options:
                raise
            given = {**keywords, **self.options}
            raise Mistake(f"{self.id} cannot be made with {given}: {error}") from error


class GymnasiumEnv:
    """N Gymnasium envs of one id, all with the same spaces."""

    def __init__(self, config: Config, envs: list[gymnasium.Env[Any, Any]]) -> None:
        first = envs[0]
        observation_space, self._view = _gymnasium_spaces.shown(first.observation_space, config)
        action_space, self._first_action = _gymnasium_spaces.choices(first.action_space, config)
        self.spec = Spec(
            num_envs=len(envs),
            observation_space=observation_space,
            action_space=action_space,
            frame_rate=float(first.metadata.get("render_fps", 30)),
            action_names=_toy_text.action_names(first),
            exact_resume=not (first.spec and first.spec.nondeterministic),
            model=_toy_text.tables(first),
            layout=_toy_text.layout(first),
            policies=_toy_text.policies(first),
        )
        self._id = config.id
        self._envs = envs
        self._seed = 0
        self._episodes = [0] * len(envs)
        self._actions: list[list[Any]] = [[] for _ in envs]  # of the current episodes
        self._step: Step | None = None

    def reset(self, seed: int) -> Step:
        """Start episode 0 of every env."""
        self._seed = operator.index(seed)
        self._episodes = [0] * self.spec.num_envs
        return self._show([self._begin(i) for i in range(self.spec.num_envs)])

    def step(self, action: Array) -> Step:
        """Apply `action`: [N] int64 in 0..A-1, [N, ...] int64 for several choices, or [N, ...]
        float32 for Box, passed on unclipped."""
        done = self._standing().done
        arrivals: list[Arrival] = []
        for i, move in enumerate(self._moves(action)):
            self._episodes[i] += int(done[i])
            arrivals.append(self._begin(i) if done[i] else self._advance(i, move))
        return self._show(arrivals)

    def render(self) -> Array:
        """Return env 0 as a picture, [H, W, 3] uint8. Raises Mistake where MuJoCo cannot draw."""
        if self._envs[0].render_mode is None:
            raise RuntimeError("only an env made with render=True can be drawn")
        try:
            return np.asarray(self._envs[0].render(), np.uint8)
        except Exception as error:
            if "mujoco" not in type(self._envs[0].unwrapped).__module__:
                raise
            raise Mistake(
                f"MuJoCo finds no OpenGL to draw {self._id} with ({error}): set the environment"
                " variable MUJOCO_GL=egl or MUJOCO_GL=osmesa, or add --recording.max-steps 0"
            ) from error

    def state_dict(self) -> State:
        """Return what each world has been through in its current episode, and what it shows now."""
        space = self.spec.action_space
        actions = [action for episode in self._actions for action in episode]
        return {
            "seed": self._seed,
            "episodes": np.array(self._episodes, np.int64),  # [N]
            "lengths": np.array([len(episode) for episode in self._actions], np.int64),  # [N]
            "actions": np.array(actions, space.dtype).reshape(-1, *space.shape or ()),
            "observation": self._standing().observation,  # [N, ...], to see that replaying worked
        }

    def load_state_dict(self, state: State) -> Step:
        """Play the saved episodes again and return the step they lead to. Worlds that are not
        reproducible start their next episode; where that comes as a surprise, with a warning."""
        num_saved = len(state["episodes"])
        if num_saved != self.spec.num_envs:
            raise Mistake(f"the run was saved with {num_saved} envs: set env.num_envs={num_saved}")
        self._seed = int(state["seed"])
        self._episodes = np.asarray(state["episodes"]).tolist()
        episodes = np.split(np.asarray(state["actions"]), np.cumsum(state["lengths"])[:-1])
        arrivals = [self._replay(i, actions) for i, actions in enumerate(episodes)]
        step, saved = self._show(arrivals), np.asarray(state["observation"])
        for i in range(num_saved):
            if np.array_equal(step.observation[i], saved[i]):
                continue
            self._episodes[i] += 1
            arrivals[i] = self._begin(i)
            if self.spec.exact_resume:
                warnings.warn(
                    f"env {i} of {self._id} did not come back to where it was saved from the same "
                    "seed and actions, and starts a new episode",
                    stacklevel=2,
                )
        return self._show(arrivals)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _standing(self) -> Step:
        if self._step is None:
            raise RuntimeError("call reset first")
        return self._step

    def _moves(self, action: Array) -> list[Any]:
        """Return the N actions as the worlds want them, in memory of their own."""
        space = self.spec.action_space
        if isinstance(space, spaces.Discrete):
            return (check_action(action, self.spec) + self._first_action).tolist()
        shape = (self.spec.num_envs, *(space.shape or ()))
        if np.shape(action) != shape:
            raise ValueError(f"actions must be {shape} numbers, got {np.shape(action)}")
        moves = np.array(action, space.dtype)
        if isinstance(space, spaces.MultiDiscrete) and not (
            np.array_equal(moves, action) and (moves >= 0).all() and (moves < space.nvec).all()
        ):
            raise ValueError(f"actions must be from 0 to below {space.nvec.tolist()}, got {action}")
        return list(moves + self._first_action)

    def _begin(self, i: int) -> Arrival:
        sequence = np.random.SeedSequence(self._seed, spawn_key=(i, self._episodes[i]))
        observation, info = self._envs[i].reset(seed=int(sequence.generate_state(1)[0]))
        shape, promised = np.shape(self._view(observation)), self.spec.observation_space.shape
        if shape != promised:
            raise ValueError(f"{self._id} promises observations {promised} and shows {shape}")
        self._actions[i] = []
        return observation, 0.0, False, False, info

    def _advance(self, i: int, move: Any) -> Arrival:
        if self.spec.exact_resume:
            self._actions[i].append(move)
        return self._envs[i].step(move)  # pyright: ignore[reportReturnType]

    def _replay(self, i: int, actions: Array) -> Arrival:
        arrival = self._begin(i)
        for action in actions if actions.ndim > 1 else actions.tolist():
            if arrival[2] or arrival[3]:
                break
            arrival = self._advance(i, action)
        return arrival

    def _show(self, arrivals: list[Arrival]) -> Step:
        n, space = self.spec.num_envs, self.spec.observation_space
        observation = np.empty((n, *(space.shape or ())), space.dtype)
        reward = np.empty((n, 1), np.float32)
        terminated, truncated = np.empty(n, bool), np.empty(n, bool)
        action_mask = np.ones((n, self.spec.num_actions), bool)
        for i, (seen, earned, over, cut, info) in enumerate(arrivals):
            observation[i] = self._view(seen)
            reward[i] = earned
            terminated[i] = over
            truncated[i] = cut and not over
            if "action_mask" in info and np.any(info["action_mask"]):
                action_mask[i] = info["action_mask"]
            elif "action_mask" in info and not (over or cut):
                raise ValueError(f"{self._id} goes on and leaves no action legal")
        self._step = Step.at(
            observation,
            self.spec.num_actions,
            action_mask=action_mask,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
        )
        return self._step


class AsGymnasium(gymnasium.Env[Any, Any]):
    """One env of the house (N = 1, one player) given back to Gymnasium. The reward is the training
    reward; `info` holds the game's own "score" and the "action_mask" as Gymnasium samples it. An
    illegal action raises ValueError or, with `nearest_legal`, for code that knows of no mask,
    stands for the legal one of the nearest number."""

    def __init__(
        self,
        env: Env,
        render_mode: Literal["rgb_array"] | None = None,
        *,
        nearest_legal: bool = False,
    ) -> None:
        if env.spec.num_envs != 1 or env.spec.num_players != 1:
            raise Mistake("only one env with one player can be a Gymnasium env: set env.num_envs=1")
        self.env = env
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": env.spec.frame_rate}
        self.render_mode = render_mode
        self.observation_space = env.spec.observation_space
        self.action_space = env.spec.action_space
        self.nearest_legal = nearest_legal
        self._over = True
        self._legal = np.ones(0, bool)  # [A]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        seed = None if seed is None else operator.index(seed)
        super().reset(seed=seed)
        step = self.env.reset(int(self.np_random.integers(2**31)) if seed is None else seed)
        self._over, self._legal = False, step.action_mask[0]
        return step.observation[0], _info(step)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset first")
        action, legal = np.asarray(action), np.flatnonzero(self._legal)
        if len(legal) < len(self._legal) and action not in legal:
            if not self.nearest_legal:
                raise ValueError(
                    f"action {action} is illegal here; info['action_mask'] tells which"
                )
            action = legal[np.abs(legal - action).argmin()]
        step = self.env.step(action[None])
        self._over, self._legal = bool(step.done[0]), step.action_mask[0]
        reward = float(step.reward[0, 0])
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        return step.observation[0], reward, terminated, truncated, _info(step)

    def render(self) -> Any:
        return None if self.render_mode is None else self.env.render()

    def close(self) -> None:
        self.env.close()


def _info(step: Step) -> dict[str, Any]:
    return {"score": float(step.score[0, 0]), "action_mask": step.action_mask[0].astype(np.int8)}


def _registered(id: str) -> EnvSpec:
    """Return what Gymnasium has registered as `id`, importing the module that registers it."""
    if id.startswith("ALE/"):
        raise Mistake(f"{id} is an Atari game: write `env: {{name: atari, game: ...}}`")
    module, _, name = id.rpartition(":")
    if not module:
        module = next((MODULES[start] for start in MODULES if id.startswith(start)), "")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except ImportError as error:
        hint = f"pip install {module.partition('.')[0]}, or put it on the Python path"
        raise Mistake(f"cannot import {module!r} for env.id={id} ({error}): {hint}") from error
    except gymnasium.error.DeprecatedEnv as error:
        raise Mistake(f"env.id={id} is no more: {error}") from error
    except gymnasium.error.Error as error:
        near = nearest(name, list(gymnasium.registry))
        raise Mistake(f"Gymnasium has no env.id={id}{near}") from error
