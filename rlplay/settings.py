"""From plain values, as a YAML file or flags hold them, to checked frozen dataclasses.

A YAML file is flags written down: both are nested dicts with plain values at the leaves. One strict
converter makes dataclasses of them; what it refuses, it refuses in one sentence that names the key
and the file, or the flag. It knows no experiment, and of a dataclass only its fields and types.
"""

from __future__ import annotations

import dataclasses
import math
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml
from yaml.composer import ComposerError

from rlplay.core import Mistake, Range, nearest

SECTIONS: dict[str, Literal["envs", "agents", "tasks"]] = {
    "env": "envs",
    "agent": "agents",
    "task": "tasks",
}
"""The groups of settings whose `name` is a plugin file, and the folder that it lies in."""


# From a file and from flags to nested dicts.


class Flag(NamedTuple):
    """A flag with the words behind it, whose meaning depends on the setting they are for."""

    name: str
    words: list[str]

    def readings(self) -> Iterator[Any]:
        """Yield the plain values that the words may stand for, likeliest first."""
        words = self.words
        if len(words) == 1 and words[0].startswith("[") and words[0].endswith("]"):  # as in YAML
            words = [word.strip() for word in words[0][1:-1].split(",")]
        scalars = [scalar(word) for word in words]
        if len(words) == 1 and words is self.words:
            yield scalars[0]
            yield words[0]
        yield scalars
        yield words
        if not self.words:
            yield True


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


def at_path(path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return the tree in which `value` stands at a path, such as ["agent", "epsilon"]."""
    first, *others = path
    return {first: at_path(others, value) if others else value}


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree of settings over another."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


# From nested dicts to dataclasses, and back.


def to_dict(value: Any) -> Any:
    """Return an experiment, or a part of one, as nested dicts and lists of plain values."""
    if dataclasses.is_dataclass(value):
        settings = [item.name for item in dataclasses.fields(value) if item.init]
        return {name: to_dict(getattr(value, name)) for name in settings}
    if isinstance(value, dict):
        return {key: to_dict(item) for key, item in value.items()}
    return [to_dict(item) for item in value] if isinstance(value, tuple | list) else value


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
    elif origin is tuple:
        if isinstance(value, list) and len(value) == len(args):
            return tuple(map(fit, args, value))
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
        count = "" if args[1:] == (...,) else f" of {len(args)}"
        return f"a list{count}, each {allowed(args[0])}"
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
