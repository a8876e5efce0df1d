"""A YAML file and the user's flags become one checked Experiment.

A YAML file is flags written down: both become nested dicts of plain values, the flags laid over the
file, and one strict converter makes frozen dataclasses of them. What it refuses, it refuses in one
sentence that names the key and the file, or the flag.

The file system is the registry: `agent: {name: dqn}` is `agents/dqn.py`. `plugin` is the only place
of the house that loads such a file, and nothing here knows what stands in one beyond its `Config`.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import math
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from yaml.composer import ComposerError

from rlplay.checkpoint import Config as Checkpoint
from rlplay.core import AgentConfig, EnvConfig, Mistake, Range, nearest
from rlplay.evaluate import Config as Evaluation
from rlplay.record import Config as Recording

HOME = Path(__file__).resolve().parent.parent
"""The clone that this package belongs to: agents/, envs/ and configs/ lie in it."""

SECTIONS: dict[str, Literal["envs", "agents"]] = {"env": "envs", "agent": "agents"}


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
    such as ["--agent.learning-rate", "3e-4"] laid over it. A flag that names another env or agent
    than the file starts that section from the other's defaults. Raises Mistake."""
    file, settings = read(config)
    flags = parse(overrides)
    kinds = []
    for section, folder in SECTIONS.items():
        written = group(settings.get(section, {}), file, section)
        typed = group(flags.get(section, {}), file, section)
        path = f"{section}.name"
        if "name" in typed and convert(str, typed["name"], file, path) != written.get("name"):
            settings[section] = written = {}
        chosen = written | typed
        if "name" not in chosen:
            raise Mistake(f"{file}: {path} is missing; choose from {', '.join(names(folder))}")
        kinds.append(plugin(folder, convert(str, chosen["name"], file, path)).Config)
    return Experiment(**vars(convert(concrete(*kinds), merge(settings, flags), file)))


def to_dict(value: Any) -> Any:
    """Return an experiment, or a part of one, as nested dicts and lists of plain values."""
    if dataclasses.is_dataclass(value):
        settings = [item.name for item in dataclasses.fields(value) if item.init]
        return {name: to_dict(getattr(value, name)) for name in settings}
    if isinstance(value, dict):
        return {key: to_dict(item) for key, item in value.items()}
    return [to_dict(item) for item in value] if isinstance(value, tuple | list) else value


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
    """Return the first line of a plugin's docstring or of a config's comment, running neither."""
    path = HOME / kind / f"{name}.{'yaml' if kind == 'configs' else 'py'}"
    line = path.read_text("utf-8").partition("\n")[0]
    return line.strip('"#. ') if line.startswith(('"""', "#")) else ""


def plugin(kind: Literal["envs", "agents"], name: str) -> types.ModuleType:
    """Load `name`.py of envs/ or agents/. Raises Mistake where there is no such file, where it
    needs a module that is not installed, and where Python would find a foreign `kind` package."""
    if name not in names(kind):
        hint = nearest(name, names(kind)) or f"; choose from {', '.join(names(kind))}"
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


# From a file and from flags to nested dicts.


class Flag(NamedTuple):
    """A flag with the words behind it, whose meaning depends on the setting they are for."""

    name: str
    words: list[str]

    def readings(self) -> Iterator[Any]:
        """Yield the plain values that the words may stand for, likeliest first."""
        scalars = [scalar(word) for word in self.words]
        yield scalars
        yield self.words
        if not self.words:
            yield True
        if len(self.words) == 1:
            yield scalars[0]
            yield self.words[0]


def parse(overrides: Sequence[str]) -> dict[str, Any]:
    """Return flags as nested dicts with a Flag at each leaf; of equal ones the last counts."""
    flags: list[Flag] = []
    for word in overrides:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flags.append(Flag(name, [value] if equals else []))
        elif flags:
            flags[-1].words.append(word)
        else:
            raise Mistake(f"{word!r} is no setting; write for example --agent.learning-rate 3e-4")
    tree: dict[str, Any] = {}
    for flag in flags:
        *path, key = flag.name[2:].replace("-", "_").split(".")
        if key.startswith("no_") and not flag.words:
            key, flag = key.removeprefix("no_"), Flag(flag.name, ["false"])
        inner = tree
        for name in path:
            inner = group(inner.setdefault(name, {}), "", "")
        inner[key] = flag
    return tree


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


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree of settings over another."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


# From nested dicts to dataclasses.


def convert(kind: Any, raw: Any, file: str, path: str = "") -> Any:
    """Return `raw` as a `kind`: a dataclass, a dict with free keys, or one setting."""
    if dataclasses.is_dataclass(kind):
        return convert_fields(kind, group(raw, file, path or "a config"), file, path)
    if get_origin(kind) is dict:
        if isinstance(raw, Flag) and len(raw.words) % 2 == 0:  # --env.options map_name 8x8
            pairs = zip(raw.words[::2], raw.words[1::2], strict=True)
            raw = {key: Flag(raw.name, [value]) for key, value in pairs}
        items = group(raw, file, path).items()
        for key, _ in items:
            convert(str, key, file, f"a key of {path}")
        return {key: convert(get_args(kind)[1], v, file, f"{path}.{key}") for key, v in items}
    readings, wrong = [raw], raw
    if isinstance(raw, Flag):
        readings, wrong = raw.readings(), " ".join(raw.words) or None
    for value in readings:
        with suppress(ValueError, OverflowError):
            return fit(kind, value)
    place = flag.name if (flag := flag_in(raw)) else f"{file}: {path}"
    choices = [choice for choice in get_args(kind) if isinstance(choice, str)]
    hint = nearest(str(wrong), choices)
    raise Mistake(f"{place} must be {allowed(kind)}, not {shown(wrong)}{hint}")


def convert_fields(kind: Any, raw: dict[str, Any], file: str, path: str) -> Any:
    """Return `raw`, laid over the defaults of the dataclass `kind`, as one of these."""
    hints = get_type_hints(kind, include_extras=True)
    known = {item.name: item for item in dataclasses.fields(kind) if item.init}
    prefix = f"{path}." if path else ""
    for key, value in raw.items():
        if key not in known:
            plugin_name = kind.__module__.rpartition(".")[2]
            owner = f"the {plugin_name} {path}" if path in SECTIONS else path or "a config"
            place = flag.name if (flag := flag_in(value)) else file
            elsewhere = [name for name in dotted(kind) if name.endswith(f".{key}")]
            hint = nearest(str(key), elsewhere or list(known))
            raise Mistake(f"{place}: {owner} has no setting {key!r}{hint}")
    defaults = {}
    for name, item in known.items():
        if item.default is not dataclasses.MISSING:
            defaults[name] = to_dict(item.default)
        elif item.default_factory is not dataclasses.MISSING:
            defaults[name] = to_dict(item.default_factory())
        elif name not in raw:
            raise Mistake(f"{file}: {prefix}{name} is missing; it must be {allowed(hints[name])}")
    settings = merge(defaults, raw).items()
    return kind(**{key: convert(hints[key], v, file, f"{prefix}{key}") for key, v in settings})


def fit(kind: Any, value: Any) -> Any:
    """Return a plain value as a `kind`. Raises ValueError where it is none."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = fit(args[0], value)
        ranges = [bound for bound in args[1:] if isinstance(bound, Range)]
        if value is None or all(bound.low <= value <= bound.high for bound in ranges):
            return value
    elif origin is Literal:
        if (type(value), value) in [(type(choice), choice) for choice in args]:
            return value
    elif origin in (Union, types.UnionType):
        for member in sorted(args, key=lambda member: member is not type(value)):
            with suppress(ValueError):
                return fit(member, value)
    elif origin is tuple and args[1:] == (...,):
        if isinstance(value, list):
            return tuple(fit(args[0], item) for item in value)
    elif kind is float:
        if type(value) in (int, float) and not math.isnan(value):
            return float(value)
    elif kind not in (int, bool, str, types.NoneType):
        raise TypeError(f"a setting cannot be of the type {kind}")
    elif type(value) is kind:
        return value
    raise ValueError


def allowed(kind: Any) -> str:
    """Return in words what a setting may be."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        bounds = [bound for bound in args[1:] if isinstance(bound, Range)]
        return allowed(args[0]) + "".join(map(within, bounds))
    if origin is Literal:
        return " or ".join(filter(None, [", ".join(map(repr, args[:-1])), repr(args[-1])]))
    if origin in (Union, types.UnionType):
        return " or ".join(map(allowed, args))
    if origin is tuple:
        return f"a list, each {allowed(args[0])}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(kind, "none" if kind is types.NoneType else "a group of settings")


def within(bound: Range) -> str:
    if math.inf in (-bound.low, bound.high):
        return f" of at most {bound.high}" if math.isinf(bound.low) else f" of at least {bound.low}"
    return f" from {bound.low} to {bound.high}"


def shown(value: Any) -> str:
    """Return a wrong value as messages show it, in one short line."""
    if isinstance(value, dict):
        return "a group of settings"
    if value is None or isinstance(value, bool):
        return {None: "empty", True: "true", False: "false"}[value]
    return text if len(text := repr(value)) <= 60 else f"{text[:57]}..."


def group(raw: Any, file: str, path: str) -> dict[Any, Any]:
    """Return `raw` if it is a group of settings. Raises Mistake if it is a single one."""
    if isinstance(raw, Flag):
        raise Mistake(f"{raw.name} is a group of settings; write for example {raw.name}.name value")
    if not isinstance(raw, dict):
        raise Mistake(f"{file}: {path} must be a group of settings, not {shown(raw)}")
    return raw


def flag_in(raw: Any) -> Flag | None:
    """Return the flag that `raw` came from, if it came from one."""
    if isinstance(raw, dict):
        return next(filter(None, map(flag_in, raw.values())), None)
    return raw if isinstance(raw, Flag) else None


def dotted(kind: Any) -> Iterator[str]:
    """Yield the settings of a dataclass and of those inside it: "agent.encoder.name", ..."""
    for name, hint in get_type_hints(kind).items():
        yield name
        if dataclasses.is_dataclass(hint):
            yield from (f"{name}.{inner}" for inner in dotted(hint))


# YAML as it is read and written here: scalars as in YAML 1.2, so that 1e-4 is a number and `no` a
# word; 1e6, being whole, is an integer; no tags, no aliases, no key twice.

TAG = "tag:yaml.org,2002:"
SCALARS = {
    "null": r"~|null|",
    "bool": r"true|false",
    "int": r"[-+]?[0-9][0-9_]*",
    "float": r"[-+]?([0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(e[-+]?[0-9]+)?|[-+]?\.?inf|\.?nan",
}
RESOLVERS = {None: [(TAG + n, re.compile(rf"({p})\Z", re.I)) for n, p in SCALARS.items()]}


def number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    text = node.value.replace("_", "").lower()
    with suppress(ValueError):
        return int(text)
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return int(value) if "e" in text and value.is_integer() else value


class Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = RESOLVERS
    numbers = dict.fromkeys([f"{TAG}int", f"{TAG}float"], number)
    yaml_constructors = yaml.SafeLoader.yaml_constructors | numbers

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            problem = "tags such as !name and aliases such as *name are not allowed in a config"
            raise ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for i, (key, _) in enumerate(node.value):
            if key.value in keys[:i]:
                problem = f"the key {key.value!r} stands here for the second time"
                raise ComposerError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


class Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = RESOLVERS

    def represent_sequence(self, tag: Any, sequence: Any, flow_style: Any = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def scalar(word: str) -> Any:
    """Return a word of the command line as the same word in a YAML file is read."""
    if word.lower() == "none":
        return None
    loader = Loader("")
    tag = loader.resolve(yaml.ScalarNode, word, (True, False))
    return loader.construct_object(yaml.ScalarNode(tag, word))
