"""A YAML file and the user's flags become one checked Experiment.

A YAML file is flags written down: the flags are laid over the file, and `settings.py` makes frozen
dataclasses of both.

The file system is the registry: `agent: {name: dqn}` is `agents/dqn.py`. `plugin` is the only place
of the house that loads such a file, and nothing here knows what stands in one beyond its `Config`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
import re
import textwrap
import types
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Protocol

import yaml

from rlplay.checkpoint import Config as Checkpoint
from rlplay.core import AgentConfig, EnvConfig, Mistake, Range, nearest
from rlplay.evaluate import Config as Evaluation
from rlplay.perception.augment import Config as Augmentation
from rlplay.perception.data import Config as Data
from rlplay.record import Config as Recording
from rlplay.schedule import Decay
from rlplay.settings import (
    SECTIONS,
    Dumper,
    Loader,
    at_path,
    convert,
    group,
    merge,
    parse,
    to_dict,
)

if TYPE_CHECKING:
    from rlplay.game import BoardGame
    from rlplay.nets import backbones
    from rlplay.perception.source import Source
    from rlplay.perception.task import Task

HOME = Path(__file__).resolve().parent.parent
"""The clone that this package belongs to: agents/, envs/ and configs/ lie in it."""
Kind = Literal["envs", "agents", "tasks", "configs"]
FOLDERS = {"tasks": "rlplay/perception"}
"""Where the files of a kind lie, if not in a folder of that name."""


@dataclass(frozen=True)
class Experiment:
    """All that a training run depends on."""

    env: EnvConfig
    """The world; `name` is a file in envs/."""
    agent: AgentConfig
    """Who plays and learns; `name` is a file in agents/."""
    num_steps: Annotated[int, Range(1)] = 1_000_000
    """Length of the training, agent steps over all envs."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """The one seed of everything random in the training."""
    collect_ahead: bool = False
    """Play the next horizon while the last one is learned from, in a thread, by the agent as it was
    before that learning: for ppo, a2c and pqn, where a second processor is idle."""
    log_every: Annotated[int, Range(1)] = 10_000
    """Agent steps between two lines of the log."""
    evaluate_every: Annotated[int, Range(0)] = 0
    """Agent steps between two evaluations during the training; 0 for one at the end only."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """How the agent is scored."""
    recording: Recording = field(default_factory=Recording)
    """The films of its play."""
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    """What is saved, and when."""

    @property
    def stem(self) -> str:
        """What its runs are named after, but for the time."""
        return f"{self.env.world}-{self.agent.name}-s{self.seed}"


class TaskConfig(Protocol):
    """The frozen dataclass `Config` of a task's file."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: str
    encoder: backbones.Config

    def make(self, source: Source) -> Task:
        """Build the task. Raises Mistake where it cannot learn from this source."""
        ...


@dataclass(frozen=True)
class Lesson:
    """All that the training of a perception task depends on."""

    task: TaskConfig
    """What is to be learned; `name` is a file in rlplay/perception/."""
    data: Data = field(default_factory=Data)
    """The pictures, and what is known of them."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """How pictures are changed while they are learned from."""
    epochs: Annotated[int, Range(1)] = 10
    """Length of the training: how often each picture is seen."""
    batch_size: Annotated[int, Range(1)] = 64
    """Pictures in one update."""
    learning_rate: Annotated[float, Range(0, 1)] = 1e-3
    """Step size of Adam."""
    decay: Decay = field(default_factory=Decay)
    """How the step size changes over the training."""
    weight_decay: Annotated[float, Range(0)] = 0.0
    """Share of each weight that is taken off it, times the step size (Loshchilov & Hutter 2019)."""
    max_grad_norm: Annotated[float, Range(0)] = 10.0
    """The gradient's norm is clipped to this."""
    patience: Annotated[int, Range(0)] = 0
    """Epochs without a better validation after which the training ends; 0 for never."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """The one seed of everything random in the training."""
    log_every: Annotated[int, Range(1)] = 100
    """Updates between two lines of the log."""
    keep: Annotated[int, Range(1)] = 2
    """How many of the newest checkpoints are kept, one for each epoch, besides the best one."""
    num_drawn: Annotated[int, Range(0)] = 32
    """Pictures of the validation that are drawn after every epoch, with what it makes of them."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto is CUDA where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto is bfloat16 for pictures from 64 pixels on where the processor has it in hardware."""

    @property
    def stem(self) -> str:
        """What its runs are named after, but for the time."""
        return f"{self.data.world}-{self.task.name}-s{self.seed}"


def load(config: str, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a YAML file, given by path or short name ("pong/dqn"), with flags
    such as ["--agent.learning-rate", "3e-4"] laid over it. Raises Mistake."""
    found = load_any(config, overrides)
    if isinstance(found, Lesson):
        raise Mistake(f"{config} is of the task {found.task.name}, which sees but does not play")
    return found


def load_any(config: str, overrides: Sequence[str] = ()) -> Experiment | Lesson:
    """Return what a YAML file describes, as `load` does, also where it is a perception task."""
    file, settings = read(config)
    if "variants" in settings:
        raise Mistake(f"{file} holds several trainings; `rlplay train {config}` runs them all")
    return build_any(lay(settings, parse(overrides), file), file)


def player(text: str) -> AgentConfig:
    """Return the settings of an agent written in one word: its name and, after a colon, what
    differs from the defaults, as in "mcts:num_simulations=1000,num_rollouts=2". Raises Mistake."""
    return in_one_word("agents", text)


def world(text: str) -> EnvConfig:
    """Return the settings of an env written in one word, as in "gomoku:size=9,line=5". Raises
    Mistake."""
    return in_one_word("envs", text)


def rules(text: str) -> BoardGame:
    """Return the rules of a board game written as `world` takes it. Raises Mistake where it is
    none."""
    make: Any = getattr(world(text), "rules", None)
    if make is None:
        games = [name for name in names("envs") if hasattr(plugin("envs", name).Config, "rules")]
        raise Mistake(f"{text!r} is no board game: set data.game to one of {', '.join(games)}")
    return make()


def in_one_word(kind: Literal["envs", "agents"], text: str) -> Any:
    name, _, settings = text.partition(":")
    found = plugin(kind, name).Config
    flags = parse([f"--{setting}" for setting in settings.split(",") if setting])
    try:
        return convert(found, flags, text, kind.removesuffix("s"))
    except Mistake as mistake:
        raise Mistake(f"in {text!r}, {str(mistake).removeprefix('--')}") from mistake


class Variant(NamedTuple):
    """One training of a config that holds several."""

    label: str
    value: float | None  # of the swept setting; None where nothing is swept
    experiment: Experiment


def variants(config: str, overrides: Sequence[str] = ()) -> list[Variant]:
    """Return the trainings of a YAML file that holds several, with flags laid over each, in the
    order of the file. Empty for a file that holds one. Raises Mistake.

        variants:                      by label, settings laid over the others of the file
          Sarsa: {agent: {name: sarsa}}
          Q-learning:
            agent: {name: q_learning}
            sweep: {agent.step_size: [0.1, 0.2, 0.4]}     a training for each value
    """
    file, settings = read(config)
    labels = group(settings.pop("variants", {}), file, "variants")
    settings.pop("plot", None)
    found: list[Variant] = []
    for label, laid in labels.items():
        path = f"variants.{label}"
        laid = dict(group(laid, file, path))
        sweep = group(laid.pop("sweep", {}), file, f"{path}.sweep")
        if len(sweep) > 1:
            raise Mistake(f"{file}: {path}.sweep must vary one setting, not {len(sweep)}")
        varied = lay(settings, laid, file)
        values: list[tuple[float | None, dict[str, Any]]] = [(None, {})]
        for key, numbers in sweep.items():
            numbers = convert(tuple[float, ...], numbers, file, f"{path}.sweep.{key}")
            values = [(number, at_path(key.split("."), number)) for number in numbers]
        for value, swept in values:
            whole = lay(lay(varied, swept, file), parse(overrides), file)
            found.append(Variant(str(label), value, build(whole, file)))
    return found


def read(config: str) -> tuple[str, dict[str, Any]]:
    """Return a config's file, as it is called in messages, and the settings in it."""
    if config in names("configs"):
        file, path = f"configs/{config}.yaml", HOME / "configs" / f"{config}.yaml"
    elif os.path.isfile(config):
        file, path = config, Path(config)
    else:
        hint = nearest(config, names("configs")) or "; `rlplay list configs` names them all"
        raise Mistake(f"no config or file called {config!r}{hint}")
    try:
        return file, group(yaml.load(path.read_text("utf-8"), Loader), file, "a config")
    except OSError as error:
        raise Mistake(f"{file} cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise Mistake(f"{file}{line}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise Mistake(f"{file} is not a YAML file: {' '.join(str(error).split())}") from error


def lay(under: Mapping[str, Any], over: Mapping[str, Any], file: str) -> dict[str, Any]:
    """Lay settings over others. Where they name another env or agent, that section starts from the
    other's defaults. Raises Mistake."""
    under = dict(under)
    for section in SECTIONS:
        written = group(under.get(section, {}), file, section)
        laid = group(over.get(section, {}), file, section)
        if "name" in laid:
            name = convert(str, laid["name"], file, f"{section}.name")
            if name != written.get("name"):
                under[section] = {}
    return merge(under, over)


def build(settings: Mapping[str, Any], file: str) -> Experiment:
    """Return the experiment that a file's settings describe. Raises Mistake."""
    kinds = {section: chosen(section, settings, file) for section in ("env", "agent")}
    return Experiment(**vars(convert(concrete(Experiment, kinds), settings, file)))


def build_any(settings: Mapping[str, Any], file: str) -> Experiment | Lesson:
    """Return the experiment, or where there is a task the lesson, that a file's settings describe.
    Raises Mistake."""
    if "task" not in settings:
        return build(settings, file)
    if both := [section for section in ("env", "agent") if section in settings]:
        raise Mistake(f"{file}: with a task there is no {both[0]}; leave out one of the two")
    kinds = {"task": chosen("task", settings, file)}
    return Lesson(**vars(convert(concrete(Lesson, kinds), settings, file)))


def chosen(section: str, settings: Mapping[str, Any], file: str) -> type:
    """Return the Config of the file that a section of the settings names. Raises Mistake."""
    folder, path = SECTIONS[section], f"{section}.name"
    written = group(settings.get(section, {}), file, section)
    if "name" not in written:
        raise Mistake(f"{file}: {path} is missing; `rlplay list {folder}` names them all")
    return plugin(folder, convert(str, written["name"], file, path)).Config


def dump(experiment: Experiment | Lesson) -> str:
    """Return the experiment as YAML from which `load` makes an equal one."""
    return yaml.dump(to_dict(experiment), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def describe(experiment: Experiment | Lesson) -> str:
    """Return the help text of `train CONFIG`: every setting with its docstring and its value."""
    kinds = {name: type(value) for name, value in vars(experiment).items() if name in SECTIONS}
    kind = concrete(Lesson if "task" in kinds else Experiment, kinds)
    return usage(kind(**vars(experiment)), "rlplay train CONFIG")


def usage(settings: Any, command: str) -> str:
    """Return the help text of a command that takes settings, given a frozen dataclass of them."""
    import tyro  # slow to import, and needed nowhere else

    with redirect_stdout(StringIO()) as text, suppress(SystemExit):
        tyro.cli(type(settings), prog=command, args=["--help"], default=settings)
    return text.getvalue()


def concrete(kind: type, sections: Mapping[str, type]) -> type:
    """Return Experiment or Lesson with the types that some sections really have."""
    fields = list(sections.items())
    return dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)


def names(kind: Kind) -> list[str]:
    """Return what files there are: "atari" in envs, "dqn" in agents, "classify" in tasks,
    "pong/dqn" in configs."""
    if kind == "configs":
        files = (HOME / kind).rglob("*.yaml")
        return sorted(file.relative_to(HOME / kind).with_suffix("").as_posix() for file in files)
    files = (HOME / FOLDERS.get(kind, kind)).glob("[!_]*.py")
    found = sorted(file.stem for file in files if file.stem.isidentifier())
    if kind == "tasks":  # beside other files in their folder: those with a Config that names them
        home = HOME / FOLDERS[kind]
        return [name for name in found if f'Literal["{name}"]' in (home / f"{name}.py").read_text()]
    return found


def about(kind: Kind, name: str) -> str:
    """Return the first sentence of a plugin's docstring, or the first line of a config's comment,
    in at most 96 characters, running neither."""
    path = HOME / FOLDERS.get(kind, kind) / f"{name}.{'yaml' if kind == 'configs' else 'py'}"
    text = path.read_text("utf-8")
    if not text.startswith(('"""', "#")):
        return ""
    paragraph = text.partition("\n" if kind == "configs" else "\n\n")[0].partition('"""\n')[0]
    sentence = re.split(r"(?<!al)\.\s", " ".join(paragraph.split()) + " ")[0]
    return textwrap.shorten(sentence.strip('"#. '), 96, placeholder=" ...")


def plugin(kind: Literal["envs", "agents", "tasks"], name: str) -> types.ModuleType:
    """Load `name`.py of envs/, agents/ or rlplay/perception/. Raises Mistake where there is no such
    file, where it needs a module that is not installed, and where Python would find a foreign
    package of that name."""
    if name not in names(kind):
        hint = nearest(name, names(kind)) or f"; `rlplay list {kind}` names them all"
        raise Mistake(f"no {kind[:-1]} called {name!r}{hint}")
    folder = FOLDERS.get(kind, kind)
    package = folder.replace("/", ".")
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or [spec.origin]) if spec else []
    if [Path(place or "").resolve() for place in places] != [HOME / folder]:
        found = f"is {places[0]}" if places else "is missing"
        raise Mistake(
            f"the package {package!r} that Python finds {found} and not {HOME / folder}; run rlplay"
            " from the project's own environment, in a folder without such a package"
        )
    try:
        return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "rlplay", *SECTIONS.values()}:
            raise
        raise Mistake(
            f"{folder}/{name}.py needs the module {missing!r}, which is not installed; type "
            f"`pip install -e {HOME}` for all that rlplay needs, or `pip install {missing}`"
        ) from error
