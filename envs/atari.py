"""Atari 2600 games, many side by side, on ale-py's native vector env (Bellemare et al. 2013).

The protocol is all in `Config`: sticky actions by default (Machado et al. 2018), or the no-op
starts of Mnih et al. (2015) with `sticky_actions: 0, noop_max: 30`. Rewards are clipped here, for
training only; `Step.score` always holds the game's own points. A lost life, or a point, can end
the bootstrap (`Step.discount` 0) and never ends the game. The emulator's state cannot be saved:
after a resume the games start anew.
"""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import ale_py
import gymnasium
import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from rlplay.core import Array, Mistake, Range, Spec, State, Step, check_action, nearest

EMULATOR_RATE = 60.0
"""Emulator frames a second, Hz."""


@dataclass(frozen=True)
class Config:
    name: Literal["atari"] = "atari"
    game: str = "pong"
    """One of the bundled games, in snake_case: pong, breakout, space_invaders, ..."""
    num_envs: Annotated[int, Range(1, 4096)] = 8
    """Games played side by side."""
    sticky_actions: Annotated[float, Range(0, 1)] = 0.25
    """Chance that the emulator repeats the last action for a frame. Machado et al. 2018: 0.25;
    Mnih et al. 2015: 0."""
    noop_max: Annotated[int, Range(0, 1000)] = 0
    """Idle frames at the start of a game, at random below this. Mnih et al. 2015: 30."""
    frame_skip: Annotated[int, Range(1, 60)] = 4
    """Emulator frames in one agent step; the last two are merged by their maximum."""
    full_action_space: bool = False
    """All 18 joystick actions instead of those that the game uses."""
    fire_start: bool = False
    """Press FIRE once at the start of each game that needs it."""
    episodic_life: bool = False
    """In training, a lost life ends the bootstrap. The game goes on."""
    episodic_points: bool = False
    """In training, a point won or lost ends the bootstrap. The game goes on. Karpathy 2016, for
    Pong."""
    clip_rewards: bool = True
    """In training, rewards are reduced to their sign."""
    num_stacked: Annotated[int, Range(1, 16)] = 4
    """Grey frames in one observation."""
    frame_size: Annotated[int, Range(16, 210)] = 84
    """Height and width of a frame, pixels."""
    max_steps: Annotated[int, Range(1, 10_000_000)] = 27_000
    """Agent steps after which a game is cut short; 27,000 are 30 minutes at frame skip 4."""

    @property
    def world(self) -> str:
        return self.game

    def make(self, *, render: bool = False) -> Atari:
        """Build the games. Raises Mistake where the game is not among the bundled ones."""
        return Atari(self, render)

    def for_evaluation(self) -> Config:
        return dataclasses.replace(
            self,
            episodic_life=False,
            episodic_points=False,
            clip_rewards=False,
            max_steps=10_000_000,  # the cap of the evaluation's own protocol counts, is reported
        )


class Atari:
    """N games. Observations are [N, num_stacked, frame_size, frame_size] uint8, newest last."""

    def __init__(self, config: Config, render: bool) -> None:
        rom = load_rom(config.game)
        every_action = rom.getLegalActionSet()
        actions = every_action if config.full_action_space else rom.getMinimalActionSet()
        self.config = config
        self.games = self._vector_env(config.num_envs, config.num_stacked)
        # A second emulator in lock-step with game 0, in full colour, for those who watch.
        self.screen = None
        if render:
            height, width = rom.getScreenDims()
            self.screen = self._vector_env(
                1, 1, grayscale=False, maxpool=False, img_height=height, img_width=width
            )
        self.picture: Array | None = None
        self.spec = Spec(
            num_envs=config.num_envs,
            observation_space=self.games.single_observation_space,
            action_space=gymnasium.spaces.Discrete(len(actions)),
            num_stacked=config.num_stacked,
            frame_rate=EMULATOR_RATE / config.frame_skip,
            frames_per_step=config.frame_skip,
            action_names=tuple(action.name.lower() for action in actions),
            reference_scores=reference_scores().get(config.game),
        )

    def _vector_env(self, num_envs: int, num_stacked: int, **changes: Any) -> AtariVectorEnv:
        config = self.config
        settings: dict[str, Any] = {
            "img_height": config.frame_size,
            "img_width": config.frame_size,
            "stack_num": num_stacked,
            "frameskip": config.frame_skip,
            "max_num_frames_per_episode": config.max_steps * config.frame_skip,
            "repeat_action_probability": config.sticky_actions,
            "full_action_space": config.full_action_space,
            "noop_max": config.noop_max,
            "use_fire_reset": config.fire_start,
            # Lives and clipping are the house's: ale-py's would hide the score and end the game.
            "episodic_life": False,
            "life_loss_info": False,
            "reward_clipping": False,
            "autoreset_mode": AutoresetMode.NEXT_STEP,
        }
        env = AtariVectorEnv(config.game, num_envs, **(settings | changes))
        env.metadata = dict(env.metadata)  # else shared with, and changed by, every other instance
        return env

    def reset(self, seed: int) -> Step:
        entropy = np.random.SeedSequence(int(seed)).generate_state(self.spec.num_envs)
        seeds = (entropy >> 1).astype(np.int64)  # 31 bits; ale-py takes a negative seed for none
        self.seeds = seeds  # of the emulators, for one that is to play along
        observation, info = self.games.reset(seed=seeds)
        self.lives = info["lives"]
        if self.screen is not None:
            self.picture = self.screen.reset(seed=seeds[:1])[0][0, 0]
        return Step.at(observation, self.spec.num_actions)

    def step(self, action: Array) -> Step:
        action = check_action(action, self.spec)  # ale-py hangs on an action out of range
        observation, points, terminated, truncated, info = self.games.step(action)
        if self.screen is not None:
            self.picture = self.screen.step(action[:1])[0][0, 0]
        score = points.astype(np.float32)[:, None]
        worthless = terminated
        if self.config.episodic_life:
            worthless = worthless | (info["lives"] < self.lives)
        if self.config.episodic_points:
            worthless = worthless | (points != 0)
        self.lives = info["lives"]
        return Step.at(
            observation,
            self.spec.num_actions,
            reward=np.sign(score) if self.config.clip_rewards else score,
            score=score,
            terminated=terminated,
            truncated=truncated & ~terminated,
            discount=1 - worthless.astype(np.float32),
        )

    def render(self) -> Array:
        assert self.picture is not None, "made without render=True, or not yet reset"
        return self.picture

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> Step:
        raise NotImplementedError("the state of Atari games cannot be saved")

    def close(self) -> None:
        del self.games, self.screen


@cache
def games() -> tuple[str, ...]:
    """Return the playable games. A ROM without a v5 id would end the process when loaded."""
    ids = (spec for name, spec in gymnasium.registry.items() if name.startswith("ALE/"))
    return tuple(sorted(spec.kwargs["game"] for spec in ids))


def load_rom(game: str) -> ale_py.ALEInterface:
    """Return the emulator with this game. Raises Mistake where it is unknown or has no ROM."""
    if game not in games():
        raise Mistake(f"no Atari game called {game!r}{nearest(game, games())}")
    try:
        path = roms.get_rom_path(game)  # also compares its checksum
    except OSError:
        path = None
    if path is None or not Path(path).is_file():
        raise Mistake(
            f"the ROM of {game} is missing from ale-py or damaged;"
            " repair it with `pip install --force-reinstall ale-py`"
        )
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    rom = ale_py.ALEInterface()
    rom.loadROM(path)
    return rom


@cache
def reference_scores() -> dict[str, tuple[float, float]]:
    """Return the scores of a random player and of a person, by game; the source is in the file."""
    lines = (Path(__file__).parent / "atari_scores.csv").read_text().splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {row["game"]: (float(row["random"]), float(row["human"])) for row in rows}
