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
from typing import Annotated, Any, Literal, NamedTuple

import yaml

from rlplay.checkpoint import Config as Checkpoint
from rlplay.core import AgentConfig, EnvConfig, Mistake, Range, nearest
from rlplay.evaluate import Config as Evaluation
from rlplay.record import Config as Recording
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

HOME = Path(__file__).resolve().parent.parent
"""The clone that this package belongs to: agents/, envs/ and configs/ lie in it."""


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


def load(config: str, overrides: Sequence[str] = ()) -> Experiment:
    """Return the experiment of a YAML file, given by path or short name ("pong/dqn"), with flags
    such as ["--agent.learning-rate", "3e-4"] laid over it. Raises Mistake."""
    file, settings = read(config)
    if "variants" in settings:
        raise Mistake(f"{file} holds several trainings; `rlplay train {config}` runs them all")
    return build(lay(settings, parse(overrides), file), file)


def player(text: str) -> AgentConfig:
    """Return the settings of an agent written in one word: its name and, after a colon, what
    differs from the defaults, as in "mcts:num_simulations=1000,num_rollouts=2". Raises Mistake."""
    return in_one_word("agents", text)


def world(text: str) -> EnvConfig:
    """Return the settings of an env written in one word, as in "gomoku:size=9,line=5". Raises
    Mistake."""
    return in_one_word("envs", text)


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
    kinds = []
    for section, folder in SECTIONS.items():
        path, chosen = f"{section}.name", group(settings.get(section, {}), file, section)
        if "name" not in chosen:
            raise Mistake(f"{file}: {path} is missing; `rlplay list {folder}` names them all")
        kinds.append(plugin(folder, convert(str, chosen["name"], file, path)).Config)
    return Experiment(**vars(convert(concrete(*kinds), settings, file)))


def dump(experiment: Experiment) -> str:
    """Return the experiment as YAML from which `load` makes an equal one."""
    return yaml.dump(to_dict(experiment), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def describe(experiment: Experiment) -> str:
    """Return the help text of `train CONFIG`: every setting with its docstring and its value."""
    import tyro  # slow to import, and needed nowhere else

    kind = concrete(type(experiment.env), type(experiment.agent))
    with redirect_stdout(StringIO()) as text, suppress(SystemExit):
        default = kind(**vars(experiment))
        tyro.cli(kind, prog="rlplay train CONFIG", args=["--help"], default=default)
    return text.getvalue()


def concrete(env: type, agent: type) -> type:
    """Return Experiment with the types that `env` and `agent` really have."""
    settings = [("env", env), ("agent", agent)]
    return dataclasses.make_dataclass("Experiment", settings, bases=(Experiment,), frozen=True)


def names(kind: Literal["envs", "agents", "configs"]) -> list[str]:
    """Return what files there are: "atari" in envs, "dqn" in agents, "pong/dqn" in configs."""
    if kind == "configs":
        files = (HOME / kind).rglob("*.yaml")
        return sorted(file.relative_to(HOME / kind).with_suffix("").as_posix() for file in files)
    return sorted(file.stem for file in (HOME / kind).glob("[!_]*.py") if file.stem.isidentifier())


def about(kind: Literal["envs", "agents", "configs"], name: str) -> str:
    """Return the first sentence of a plugin's docstring, or the first line of a config's comment,
    in at most 96 characters, running neither."""
    path = HOME / kind / f"{name}.{'yaml' if kind == 'configs' else 'py'}"
    text = path.read_text("utf-8")
    if not text.startswith(('"""', "#")):
        return ""
    paragraph = text.partition("\n" if kind == "configs" else "\n\n")[0].partition('"""\n')[0]
    sentence = re.split(r"(?<!al)\.\s", " ".join(paragraph.split()) + " ")[0]
    return textwrap.shorten(sentence.strip('"#. '), 96, placeholder=" ...")


def plugin(kind: Literal["envs", "agents"], name: str) -> types.ModuleType:
    """Load `name`.py of envs/ or agents/. Raises Mistake where there is no such file, where it
    needs a module that is not installed, and where Python would find a foreign `kind` package."""
    if name not in names(kind):
        hint = nearest(name, names(kind)) or f"; `rlplay list {kind}` names them all"
        raise Mistake(f"no {kind[:-1]} called {name!r}{hint}")
    spec = importlib.util.find_spec(kind)
    places = list(spec.submodule_search_locations or [spec.origin]) if spec else []
    if [Path(place or "").resolve() for place in places] != [HOME / kind]:
        found = f"is {places[0]}" if places else "is missing"
        raise Mistake(
            f"the package {kind!r} that Python finds {found} and not {HOME / kind}; run rlplay "
            "from the project's own environment, in a folder without such a package"
        )
    try:
        return importlib.import_module(f"{kind}.{name}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in {"", "rlplay", *SECTIONS.values()}:
            raise
        raise Mistake(
            f"{kind}/{name}.py needs the module {missing!r}, which is not installed; type "
            f"`pip install -e {HOME}` for all that rlplay needs, or `pip install {missing}`"
        ) from error
