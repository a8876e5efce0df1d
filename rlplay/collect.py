"""Play a game and keep what is seen: the recorder of datasets for perception.

One emulator plays one episode after the other, each from a seed of its own, so that the same
command writes the same bytes. A recording that was killed goes on exactly where it stood: its last
episode is played again from the start, and what is on the disk is left out. Where an agent plays,
whose chance runs on from episode to episode, it goes on with the next episode.

A trained agent sees its own preprocessed frames, which its env makes in an emulator of ale-py's
vector env; that has no RAM. A second emulator with the same seed plays along in lock-step, and both
must show the same picture at every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from rlplay import config, run
from rlplay.core import Array, Mistake, Range
from rlplay.perception.frames import MOMENT, NO_ACTION, Frames, Manifest, read_manifest
from rlplay.settings import convert, parse
from rlplay.words import say

PACKAGES = ("rlplay", "ale-py", "numpy")
UNIFORM = "uniform"


@dataclass(frozen=True)
class Config:
    steps: Annotated[int, Range(1)] = 10_000
    """Agent steps to record; 10,000 take 340 MB."""
    policy: str = UNIFORM
    """Who plays: uniform for random actions, or a run whose agent does."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Seed of the first episode; each has its own."""
    out: str = ""
    """Folder of the dataset; datasets/GAME where it is left out."""
    sticky_actions: Annotated[float, Range(0, 1)] = 0.25
    """Chance that the emulator repeats the last action for a frame (Machado et al. 2018)."""
    frame_skip: Annotated[int, Range(1, 60)] = 4
    """Emulator frames in one agent step; the last one is kept."""
    noop_max: Annotated[int, Range(1, 1000)] = 30
    """Idle emulator frames before a random player's episode, at random below this, so that what
    blinks is seen in some episodes. A trained agent's begin without."""
    max_steps: Annotated[int, Range(1, 10_000_000)] = 27_000
    """Agent steps after which an episode is cut short."""
    chunk: Annotated[int, Range(1, 100_000)] = 1000
    """Steps in one file."""


class Seen(NamedTuple):
    """One moment of play."""

    screen: Array  # [H, W] uint8 palette colours
    ram: Array  # [128] uint8
    reward: float  # earned on arriving
    terminated: bool
    action: int  # taken next


class Emulator:
    """One Atari 2600 with a game."""

    def __init__(self, game: str, settings: Config) -> None:
        """Load the game. Raises Mistake where there is none of that name."""
        atari = config.plugin("envs", "atari")
        self.ale = atari.load_rom(game)
        self.path = atari.roms.get_rom_path(game)
        self.frame_skip = settings.frame_skip
        self.ale.setFloat("repeat_action_probability", settings.sticky_actions)
        self.offer(tuple(action.name.lower() for action in self.ale.getMinimalActionSet()))

    def offer(self, names: tuple[str, ...]) -> None:
        """Number the actions in this order."""
        every = {action.name.lower(): action for action in self.ale.getLegalActionSet()}
        self.names, self.actions = names, [every[name] for name in names]

    def start(self, seed: int, num_idle: int = 0, fire: bool = False) -> None:
        """Begin an episode: power on, press FIRE where wanted, and wait."""
        self.ale.setInt("random_seed", seed)
        self.ale.loadROM(self.path)
        self.ale.reset_game()
        if fire and "fire" in self.names:
            self.ale.act(self.actions[self.names.index("fire")])
        for _ in range(num_idle):
            self.ale.act(self.actions[0])

    def step(self, action: int) -> float:
        """Hold an action for one agent step; return the points."""
        points = 0.0
        for _ in range(self.frame_skip):
            if not self.ale.game_over():
                points += self.ale.act(self.actions[action])
        return points


class Uniform:
    """Plays any action at random."""

    repeats = True
    """Episode number e is the same whatever was played before."""

    def __init__(self, emulator: Emulator, settings: Config) -> None:
        self.emulator, self.settings = emulator, settings

    def begin(self, episode: int) -> None:
        self.random = np.random.default_rng([self.settings.seed, episode])
        seed, num_idle = self.random.integers([2**31 - 1, self.settings.noop_max])
        self.emulator.start(int(seed), int(num_idle))

    def act(self) -> int:
        return int(self.random.integers(len(self.emulator.actions)))

    def check(self) -> None:
        """Nobody plays along."""


class Trained:
    """Plays as the agent of a run does, with its env beside the emulator."""

    repeats = False

    def __init__(self, emulator: Emulator, settings: Config, player: run.Player, env: Any) -> None:
        self.emulator, self.settings, self.player, self.env = emulator, settings, player, env
        emulator.offer(env.spec.action_names)

    def begin(self, episode: int) -> None:
        entropy = np.random.SeedSequence([self.settings.seed, episode])
        self.step = self.env.reset(int(entropy.generate_state(1)[0] >> 1))
        fire = bool(getattr(self.player.experiment.env, "fire_start", False))
        self.emulator.start(int(self.env.seeds[0]), fire=fire)
        self.player.begin()
        self.check()

    def act(self) -> int:
        action = self.player.agent.act(self.step, explore=False).action
        self.step = self.env.step(action)
        return int(action[0])

    def check(self) -> None:
        """Raise RuntimeError where the two are not at the same frame of the same game. Of a last
        frame before its time, the env shows an older picture."""
        over = self.emulator.ale.game_over()
        same = np.array_equal(self.env.render(), self.emulator.ale.getScreenRGB())
        if over != bool(self.step.terminated[0]) or not (same or over):
            raise RuntimeError("the two emulators have come apart")


def from_words(words: list[str], root: Path) -> int:
    """Record what a command line asks for; return the exit code. Raises Mistake."""
    if not words or words[0].startswith("-"):
        raise Mistake("`rlplay collect-frames` needs a game, such as `rlplay collect-frames pong`")
    game, *typed = words
    settings = convert(Config, parse(typed), "--", "collect-frames")
    frames = collect(game, settings, root, say)
    num_episodes = len(np.unique(frames.moments["episode"]))
    say(f"{frames.folder}: {len(frames):,} frames of {num_episodes:,} episodes of {game}")
    return 0


def collect(game: str, settings: Config, root: Path, announce: Callable[[str], None]) -> Frames:
    """Record a dataset, or go on with one that is not complete; return it. Raises Mistake."""
    folder = Path(settings.out or f"datasets/{game}")
    with ExitStack() as stack:
        emulator = Emulator(game, settings)
        policy: Uniform | Trained = Uniform(emulator, settings)
        player = UNIFORM
        if settings.policy != UNIFORM:
            found = run.find(settings.policy, root)
            trained, env = seat(found, game, settings, stack)
            policy = Trained(emulator, settings, trained, env)
            player = f"{found.name} at {trained.num_steps} agent steps"
        protocol = {
            "game": game,
            "policy": player,
            "seed": settings.seed,
            "sticky_actions": settings.sticky_actions,
            "frame_skip": settings.frame_skip,
            "noop_max": settings.noop_max if player == UNIFORM else 0,
            "max_steps": settings.max_steps,
            "action_names": list(emulator.names),
            "screen": list(emulator.ale.getScreenDims()),
        }
        stack.enter_context(reserved(folder))
        manifest = opened(folder, protocol)
        record(folder, manifest, policy, settings, announce)
    return Frames(folder)


def seat(found: run.Run, game: str, settings: Config, stack: ExitStack) -> tuple[run.Player, Any]:
    """Return the agent of a run and an env for it. Raises Mistake where it plays another game."""
    laid = [
        f"--env.sticky-actions={settings.sticky_actions}",
        f"--env.frame-skip={settings.frame_skip}",
        "--env.noop-max=0",
    ]
    experiment = found.experiment()
    if experiment.env.name != "atari" or experiment.env.world != game:
        raise Mistake(
            f"the run {found.name} plays {experiment.env.world}, not the Atari game {game}: name"
            f" a run of that game in --policy, or record {experiment.env.world}"
        )
    player = run.load_player(found, "", run.print_to_stderr, laid)
    return player, stack.enter_context(run.single_env(player.experiment, render=True))


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Make a folder if there is none, and keep other recordings out of it meanwhile. Raises Mistake
    where it cannot be made, or another process records there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    with run.alone(folder, f"{folder} is being recorded"):
        yield


def unwritable(folder: Path, error: OSError) -> Mistake:
    return Mistake(f"cannot write to {folder}: {error.strerror}; name another folder in --out")


def opened(folder: Path, protocol: dict[str, Any]) -> Manifest:
    """Return the manifest of a dataset that is begun here, or has been. Raises Mistake where it was
    played otherwise, or the folder cannot be written."""
    if (folder / "manifest.json").exists():
        manifest = read_manifest(folder)
        for name, value in protocol.items():
            if manifest.protocol.get(name) != value:
                raise Mistake(
                    f"{folder} was recorded with {name} {manifest.protocol.get(name)!r}, not"
                    f" {value!r}: name another folder in --out"
                )
        return manifest
    manifest = Manifest(protocol, {name: metadata.version(name) for name in PACKAGES})
    try:
        manifest.write(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    return manifest


def record(
    folder: Path,
    manifest: Manifest,
    policy: Uniform | Trained,
    settings: Config,
    announce: Callable[[str], None],
) -> None:
    """Play until the dataset has `settings.steps` moments."""
    stands = manifest.num_moments
    first = skipped = 0
    if stands >= settings.steps:
        return announce(f"{folder} has {stands:,} agent steps already; for more, add --steps")
    if stands:
        before = Frames(folder)
        first = int(before.moments["episode"][-1])
        if policy.repeats:
            skipped = int((before.moments["episode"] == first).sum())
        else:
            first += 1
        announce(f"{folder} has {stands:,} agent steps already")
    screens: list[Array] = []
    rows: list[tuple[Any, ...]] = []
    for episode in count(first):
        for seen in moments(policy, episode, settings.max_steps):
            remember(manifest, seen.screen, policy.emulator)
            if skipped:
                skipped -= 1
                continue
            screens.append(seen.screen)
            rows.append((seen.ram, seen.reward, episode, seen.action, seen.terminated))
            if len(rows) == settings.chunk or stands + len(rows) == settings.steps:
                manifest.append(folder, np.stack(screens), np.array(rows, MOMENT))
                stands += len(rows)
                announce(f"{stands:,} of {settings.steps:,} agent steps, {episode + 1:,} episodes")
                screens, rows = [], []
            if stands == settings.steps:
                return
        skipped = 0


def moments(policy: Uniform | Trained, episode: int, max_steps: int) -> Iterator[Seen]:
    """Play an episode, and yield every moment of it."""
    policy.begin(episode)
    ale, reward = policy.emulator.ale, 0.0
    for moment in count():
        over = bool(ale.game_over())
        ended = over or moment == max_steps
        screen, ram = ale.getScreen(), ale.getRAM()
        action = NO_ACTION if ended else policy.act()
        yield Seen(screen, ram, reward, over, action)
        if ended:
            return
        reward = policy.emulator.step(action)
        policy.check()


def remember(manifest: Manifest, screen: Array, emulator: Emulator) -> None:
    """Note the RGB of palette colours that are seen for the first time."""
    here = np.flatnonzero(np.bincount(screen.ravel(), minlength=256))
    new = [int(colour) for colour in here if str(colour) not in manifest.palette]
    if new:
        picture = emulator.ale.getScreenRGB()
        for colour in new:
            manifest.palette[str(colour)] = picture[screen == colour][0].tobytes().hex()
