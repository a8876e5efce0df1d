"""The run folder: all that is known of one training, in files that any tool can read.

runs/<world>-<agent>-s<seed>-<time>/, of a perception task runs/<data>-<task>-s<seed>-<time>/
  config.yaml     the experiment; `rlplay train` on it repeats the run
  command.txt     what was typed, a line for each start and resume
  system.json     versions, commit, processor, device
  env.json        the protocol: spaces, actions, frames per step, seeds; of a task data.json
  metrics.jsonl   one line per log entry, the same names and numbers as in TensorBoard
  episodes.npz    by metric and number of the episode: how many envs, their sum and sum of squares
  events...       TensorBoard
  checkpoints/    numbered by agent steps, or updates; `best` by evaluation, or validation
  recordings/     mp4 and npz
  pictures/       of every checkpoint, what the agent thinks of every state, where there is a map;
                  or what the task makes of pictures
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rlplay import checkpoint, config
from rlplay.config import Experiment, Lesson
from rlplay.core import Agent, Array, Env, Mistake, Spec, State, Step, nearest
from rlplay.settings import to_dict

PACKAGES = ("rlplay", "torch", "numpy", "gymnasium", "ale-py", "stable-baselines3", "pettingzoo")

UNPLAYED = ("replay", "ahead")
"""The parts of a checkpoint that only training needs."""
SCORES = ("eval/mean_reward", "rollout/ep_score_mean", "test/goal", "validation/goal")
"""What a run is scored by: the first of these that it has."""


class Run:
    """One run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_locked = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def recordings(self) -> Path:
        return self.folder / "recordings"

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @property
    def is_lesson(self) -> bool:
        """Tell whether it is of a perception task, and not of an agent."""
        return "task" in config.read(str(self.folder / "config.yaml"))[1]

    def experiment(self, settings: Sequence[str] = ()) -> Experiment:
        """Return what the run is made of, with `settings` as typed laid over it. Raises Mistake
        where they name another agent: it could not take over what this one has learned."""
        file = str(self.folder / "config.yaml")
        experiment, trained = config.load(file, settings), config.load(file).agent.name
        if experiment.agent.name != trained:
            raise Mistake(
                f"{self.name} has trained {trained}, which {experiment.agent.name} cannot take"
                " over; leave out --agent.name, or start a new run with `rlplay train`"
            )
        self.check_begun(settings)
        return experiment

    def experiment_any(self, settings: Sequence[str] = ()) -> Experiment | Lesson:
        """Return what the run is made of, as `experiment` does, also where it is a perception task.
        Raises Mistake where `settings` name another agent or task."""
        if not self.is_lesson:
            return self.experiment(settings)
        file = str(self.folder / "config.yaml")
        lesson, trained = config.load_any(file, settings), config.load_any(file)
        assert isinstance(lesson, Lesson)
        assert isinstance(trained, Lesson)
        if lesson.task.name != trained.task.name:
            raise Mistake(
                f"{self.name} has trained {trained.task.name}, which {lesson.task.name} cannot take"
                " over; leave out --task.name, or start a new run with `rlplay train`"
            )
        self.check_begun(settings)
        return lesson

    def check_begun(self, settings: Sequence[str]) -> None:
        """Raise Mistake where settings as typed name a run to start from."""
        for word in settings:
            if word.replace("-", "_").startswith(("__agent.encoder.weights", "__task.encoder.wei")):
                raise Mistake(
                    f"{self.name} has begun, and an encoder's weights are taken over only at the"
                    f" start: leave out {word}, or start a new run with `rlplay train`"
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this folder meanwhile. Raises Mistake where one
        already does."""
        if self.is_locked:  # by an outer `with` of ours
            yield
            return
        with alone(self.folder, f"{self.name} is being trained"):
            self.is_locked = True
            try:
                yield
            finally:
                self.is_locked = False

    def describe(self, experiment: Experiment | Lesson, spec: Spec | State) -> None:
        """Write down what the run is made of: of an experiment with the Spec of its env, of a
        lesson with what is to be known of its data. Raises Mistake where the folder cannot be
        written."""
        try:
            write(self.folder / "config.yaml", config.dump(experiment))
            if isinstance(experiment, Experiment) and isinstance(spec, Spec):
                write_json(self.folder / "env.json", protocol(experiment, spec))
            else:
                write_json(self.folder / "data.json", spec)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def start(self, command: list[str]) -> None:
        """Note the command that starts or resumes the run, and the system it runs on."""
        try:
            with (self.folder / "command.txt").open("a") as file:
                file.write(shlex.join(command) + "\n")
            write_json(self.folder / "system.json", system())
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def write_episodes(self, by_number: Mapping[str, Array]) -> None:
        """Write the episodes told apart by their number, [E, 3] by name, without empty ends."""
        path = self.folder / "episodes.npz"
        temporary = path.with_name(".episodes.npz")
        tables = {name: table[table[:, 0] > 0] for name, table in by_number.items()}
        np.savez(temporary, allow_pickle=False, **tables)
        temporary.replace(path)


def create(experiment: Experiment | Lesson, spec: Spec | State, root: Path) -> Run:
    """Make the folder of a new run, with what `Run.describe` writes there. Raises Mistake where
    `root` cannot be written."""
    stem = f"{experiment.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        folder = root / (stem + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise unwritable(root, error) from error
        run = Run(folder)
        run.describe(experiment, spec)
        return run
    raise Mistake(f"there are a hundred runs called {stem} already; wait a second")


def unwritable(folder: Path, error: OSError) -> Mistake:
    return Mistake(f"cannot write to {folder}: {error.strerror}; choose another with --runs FOLDER")


def runs(root: Path) -> list[Run]:
    """Return the runs under `root`, oldest first."""
    files = sorted(root.glob("*/config.yaml"), key=lambda file: (file.stat().st_mtime, file))
    return [Run(file.parent) for file in files]


def state(run: Run) -> dict[str, Any]:
    """Return where a run stands, by the last lines of its log."""
    metrics = run.folder / "metrics.jsonl"
    known: dict[str, Any] = {}
    for line in read_lines(metrics) if metrics.exists() else []:
        known |= line
    return {
        "name": run.name,
        "steps": known.get("step", 0),
        "score": next((known[name] for name in SCORES if name in known), None),
        "checkpoints": len(checkpoint.names(run.checkpoints)),
    }


def find(name: str, root: Path) -> Run:
    """Return the run that `name` means: a path, `last`, or a unique prefix. Raises Mistake."""
    if (Path(name) / "config.yaml").is_file():
        return Run(Path(name))
    there = {run.name: run for run in runs(root)}
    if not there:
        raise Mistake(f"there are no runs in {root}; start one with `rlplay train cartpole/dqn`")
    if name == "last":
        return list(there.values())[-1]
    found = [run for run in there if run.startswith(name)]
    if name in there:
        found = [name]
    if len(found) > 1:
        raise Mistake(f"{name!r} could be any of {', '.join(found)}; type more of it")
    if not found:
        raise Mistake(f"no run called {name!r} in {root}{nearest(name, list(there))}")
    return there[found[0]]


@dataclasses.dataclass(frozen=True)
class Player:
    """A trained agent, ready to play."""

    agent: Agent
    experiment: Experiment
    spec: Spec
    num_steps: int
    """Agent steps it was trained for."""

    def begin(self) -> None:
        """An episode begins: an agent with memory forgets the last one. Others need not be told."""
        self.agent.begin()

    def action(self, observation: Array | int) -> Any:
        """Return the agent's choice for one observation, of the shape that it was trained on.
        Raises Mistake for another one."""
        observation = np.asarray(observation)[None]
        wanted = self.spec.observation_space.shape
        if observation.shape[1:] != wanted:
            raise Mistake(
                f"the agent was trained on observations of shape {wanted}, not"
                f" {observation.shape[1:]}; make the env with envs.{self.experiment.env.name}"
            )
        decision = self.agent.act(Step.at(observation, self.spec.num_actions), explore=False)
        return decision.action[0] if self.spec.num_actions == 0 else int(decision.action[0])


def load(name: str = "last", which: str = "", root: Path | str = "runs") -> Player:
    """Load the agent of a run: of its newest valid checkpoint, or of the one called `which`
    ("best", or a number of agent steps). Raises Mistake where there is none."""
    return load_player(find(name, Path(root)), which, print_to_stderr)


def load_player(
    run: Run, which: str, announce: Callable[[str], None], settings: Sequence[str] = ()
) -> Player:
    """Load the agent of a run, with `settings` as typed laid over those of the run."""
    from rlplay import frozen  # imports torch

    experiment = run.experiment(settings)
    parts = load_parts(run, which, announce)
    with single_env(experiment) as env:
        spec = env.spec
    agent = frozen.make(experiment.agent, spec, experiment.seed, learns=False)
    agent.load_state_dict(parts)
    return Player(agent, experiment, spec, int(parts["train"]["steps"]))


@contextmanager
def single_env(experiment: Experiment, render: bool = False) -> Iterator[Env]:
    """Open one env as it is evaluated, and close it."""
    env_config = dataclasses.replace(experiment.env.for_evaluation(), num_envs=1)
    env = env_config.make(render=render)
    try:
        yield env
    finally:
        env.close()


def load_parts(run: Run, which: str, announce: Callable[[str], None]) -> dict[str, State]:
    """Return what an agent needs to play: a checkpoint without its memory."""
    if not which:
        return checkpoint.newest(run.checkpoints, announce, UNPLAYED)[1]
    there = checkpoint.names(run.checkpoints)
    there += ["best"] * (run.checkpoints / "best").is_dir()
    name = which.zfill(9) if which.isdigit() else which
    if not (run.checkpoints / name).is_dir():
        raise Mistake(f"run {run.name} has no checkpoint {which!r}; it has {', '.join(there)}")
    try:
        return checkpoint.load(run.checkpoints / name, UNPLAYED)
    except checkpoint.Damaged as damage:
        raise Mistake(f"checkpoint {name} of run {run.name} is damaged: {damage}") from damage


@contextmanager
def alone(folder: Path, busy: str) -> Iterator[None]:
    """Keep other processes that ask likewise out of a folder meanwhile. Raises Mistake where one is
    there already; `busy` says what it is at."""
    guard = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Mistake(f"{busy} by another process; stop that first") from error
        yield
    finally:
        os.close(guard)


class Log:
    """Metrics by name, into metrics.jsonl and TensorBoard. Steps are agent steps."""

    def __init__(self, folder: Path, step: int) -> None:
        """Open the log of a run that stands at `step`; what was logged later is dropped."""
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "metrics.jsonl"
        if self.path.exists():
            kept = [line for line in read_lines(self.path) if line["step"] <= step]
            write(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.file = self.path.open("ab", buffering=0)  # a full disk is told at once, not at the end
        self.writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        line = json.dumps({"step": step, **metrics}) + "\n"
        self.file.write(line.encode())
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def write_settings(self, experiment: Experiment | Lesson) -> None:
        """Show the experiment in TensorBoard: as text, and among the hyper-parameters."""
        from torch.utils.tensorboard.summary import hparams

        self.writer.add_text("config", f"```\n{config.dump(experiment)}\n```", 0)
        settings = dict(flatten(to_dict(experiment)))
        for summary in hparams(settings, {"eval/mean_reward": 0.0, "rollout/ep_rew_mean": 0.0}):
            self.writer._get_file_writer().add_summary(summary)
        self.writer.flush()

    def close(self) -> None:
        self.file.close()
        self.writer.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a metrics file; a kill can leave half of the last one."""
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


def flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return a nested mapping as dotted names and plain values, lists as text."""
    pairs = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            pairs += flatten(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            pairs.append((prefix + name, value if plain else str(value)))
    return pairs


def protocol(experiment: Experiment, spec: Spec) -> dict[str, Any]:
    """Return what must be known to compare this run's scores with others'."""
    settings = to_dict(experiment)
    return {
        "training": settings["env"],
        "evaluation": {
            "env": dataclasses.asdict(experiment.env.for_evaluation()),
            **settings["evaluation"],
        },
        "observation_space": str(spec.observation_space),
        "action_space": str(spec.action_space),
        "action_names": spec.action_names,
        "frames_per_step": spec.frames_per_step,
        "reference_scores": spec.reference_scores,
    }


def system() -> dict[str, Any]:
    """Return what the run ran on."""
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    repository = Path(__file__).parents[1]
    git = ["git", "-C", str(repository), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        commit = ""
    cuda = torch.cuda.is_available()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "cuda_device": torch.cuda.get_device_name() if cuda else None,
        "commit": commit or None,
        "versions": versions,
    }


def processor() -> str:
    """Return the processor's name as Linux tells it, else as Python does."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(path: Path, text: str) -> None:
    """Write a file whole or, where the disk is full, not at all."""
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    write(path, json.dumps(value, indent=2, default=str) + "\n")


def print_to_stderr(sentence: str) -> None:
    print(sentence, file=sys.stderr)
