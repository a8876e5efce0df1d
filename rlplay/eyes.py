"""The encoder of any run, an agent's or a perception task's, to look at pictures with: what is
handed on, probed, searched by and explained.

An encoder is handed on where its layers have the same kernels, channels and strides. A convolution
does not ask for a picture's size, so that may differ; what lies behind the encoder starts anew.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np
import torch

from rlplay import frozen, run
from rlplay.config import Experiment, Lesson
from rlplay.core import Agent, AgentConfig, Mistake, Spec
from rlplay.nets import backbones, encoders
from rlplay.nets.encoders import Encoder

Announce = Callable[[str], None]
Kind = TypeVar("Kind", Experiment, Lesson, Experiment | Lesson)
PREFIXES = ("encoder.", "trunk.encoder.")
"""What the names of an encoder's weights begin with: in value networks and tasks, in policies."""
NAMES = get_args(get_type_hints(encoders.Config)["name"])
TELLING = {
    "mlp": ("name", "hidden"),
    "nips2013": ("name", "width", "first_stride"),
    "nature": ("name", "width", "first_stride"),
    "impala": ("name", "width"),
    **dict.fromkeys(("lenet", "small", "alexnet", "vgg11"), ("name", "norm", "width")),
    **dict.fromkeys(("resnet18", "resnet50"), ("name", "width")),
    "timm": ("name", "backbone"),
}
"""The settings that make an encoder what it is."""


class Eyes(NamedTuple):
    """An encoder in float32 on the CPU, with its weights, not to be trained: from pictures
    [B, *shape], 0..1, to maps."""

    encoder: Encoder
    shape: tuple[int, int, int]  # of a picture: channels, height, width
    about: str
    """Whose it is."""


class Origin(NamedTuple):
    """The encoder of a run, as in Eyes, also where it sees other things than pictures."""

    encoder: Encoder
    settings: encoders.Config | backbones.Config
    shape: tuple[int, ...]  # of what it sees
    name: str
    """Of the run."""
    trained: str
    """For how long."""


def load(found: run.Run, which: str, announce: Callable[[str], None]) -> Eyes:
    """Return the encoder of a run: of the best of its validations, or for agents of its newest
    checkpoint, or of the one called `which`. Needs no data. Raises Mistake where there is none, or
    it looks at no pictures."""
    own = origin(found, which, announce)
    if len(own.shape) != 3:
        raise Mistake(
            f"the encoder of {found.name} sees no pictures but {list(own.shape)} numbers: name"
            " another run"
        )
    channels, height, width = own.shape
    return Eyes(own.encoder, (channels, height, width), f"{own.name} after {own.trained}")


def origin(found: run.Run, which: str, announce: Callable[[str], None]) -> Origin:
    """Return the encoder of a run, as `load` does, whatever it sees."""
    experiment = found.experiment_any()
    if isinstance(experiment, Lesson):
        spec = json.loads((found.folder / "data.json").read_text())
        channels, height, width = shape = tuple(spec["shape"])
        if not which and (found.checkpoints / "best").is_dir():
            which = "best"
        settings, unit = experiment.task.encoder, "updates"
        encoder = settings.make((channels, height, width))
    else:
        settings, unit = getattr(experiment.agent, "encoder", None), "agent steps"
        if not isinstance(settings, encoders.Config) or settings.name not in NAMES:
            raise Mistake(
                f"{found.name} has trained {experiment.agent.name} on {experiment.env.world}, which"
                " has no encoder of ours: name another run"
            )
        with run.single_env(experiment) as env:
            space = env.spec.observation_space
        shape = encoders.prepared_shape(space)
        encoder = settings.make(space)
    parts = run.load_parts(found, which, announce)
    saved = {**parts["weights"], **parts.get("task", {}).get("buffers", {})}
    starts = frozen.places(saved, encoder)
    start = next((prefix for prefix in PREFIXES if prefix in starts), *starts[:1] or [""])
    state = encoder.state_dict()
    if not starts and state:
        raise Mistake(f"{found.name} has no encoder of ours: name another run")
    encoder.load_state_dict({k: torch.from_numpy(np.array(saved[start + k])) for k in state})
    trained = parts["train"].get("steps", parts["train"].get("updates"))
    encoder = encoder.eval().requires_grad_(False)
    return Origin(encoder, settings, shape, found.name, f"{trained:,} {unit}")


# What is handed on.


def located(experiment: Kind, root: Path) -> Kind:
    """Return an experiment or lesson that names the run from which its encoder starts, if there is
    one, by its path. Raises Mistake where there is no such run below `root`."""
    section = "task" if isinstance(experiment, Lesson) else "agent"
    learner = getattr(experiment, section)
    encoder: Any = getattr(learner, "encoder", None)
    if not getattr(encoder, "weights", ""):
        return experiment
    path = str(run.find(encoder.weights, root).folder)
    learner = dataclasses.replace(learner, encoder=dataclasses.replace(encoder, weights=path))
    return dataclasses.replace(experiment, **{section: learner})


def lend_agent(agent: Agent, config: AgentConfig, spec: Spec, announce: Announce) -> None:
    """Let a new agent start from the encoder of the run that its settings name, if they do. Raises
    Mistake where there is none, or it does not fit."""
    settings = getattr(config, "encoder", None)
    if not isinstance(settings, encoders.Config) or not settings.weights:
        return
    own = origin(run.find(settings.weights, Path("runs")), "", announce)
    with torch.random.fork_rng(devices=[]):
        mine = settings.make(spec.observation_space)
    check(own, mine, settings, encoders.prepared_shape(spec.observation_space), "agent")
    state = {name: part for name, part in agent.state_dict().items() if name != "replay"}
    arrays = {name: tensor.numpy() for name, tensor in own.encoder.state_dict().items()}
    starts = frozen.places(state["weights"], mine)
    everywhere = {start + name: array for start in starts for name, array in arrays.items()}
    agent.load_state_dict(frozen.overlaid(state, everywhere))
    announce(f"the encoder starts from that of {own.name} after {own.trained}")


def lend_task(
    encoder: Encoder, settings: backbones.Config, shape: tuple[int, ...], announce: Announce
) -> None:
    """Let the encoder of a new task start from that of the run that its settings name, if they do.
    Raises Mistake where there is none, or it does not fit."""
    if not settings.weights:
        return
    own = origin(run.find(settings.weights, Path("runs")), "", announce)
    check(own, encoder, settings, shape, "task")
    encoder.load_state_dict(own.encoder.state_dict())
    announce(f"the encoder starts from that of {own.name} after {own.trained}")


def check(
    own: Origin,
    mine: Encoder,
    settings: encoders.Config | backbones.Config,
    shape: tuple[int, ...],
    section: str,
) -> None:
    """Raise Mistake where a run's encoder is not of the same layers and strides as one that sees
    `shape`. Height and width may differ, but for an mlp."""
    there, here = ({k: x.shape for k, x in net.state_dict().items()} for net in (own.encoder, mine))
    if there == here and own.encoder.strides == mine.strides:
        return
    names = get_args(get_type_hints(type(settings))["name"])
    wanted = {name: getattr(own.settings, name, None) for name in TELLING[own.settings.name]}
    changes = {k: v for k, v in wanted.items() if v is not None and v != getattr(settings, k, None)}
    if own.settings.name not in names:
        remedy = f"name a run whose encoder is one of {', '.join(names)}"
    elif changes:
        words = (f"{section}.encoder.{name}={written(value)}" for name, value in changes.items())
        remedy = f"set {' '.join(words)}"
    elif own.settings.name == "mlp":
        remedy = "an mlp sees only what has the size it was trained on, so name another run"
    else:
        remedy = (
            "an encoder keeps its number of channels, so let both see as many"
            " (env.num_stacked of an agent, data.num_stacked and data.grey of a task)"
        )
    raise Mistake(
        f"{own.name} has {described(own.settings, own.shape)}, which does not fit"
        f" {described(settings, shape)} here: {remedy}"
    )


def described(settings: encoders.Config | backbones.Config, shape: tuple[int, ...]) -> str:
    """Return an encoder in words, such as "an encoder nature (width 1, first_stride 4) of
    [4, 84, 84]"."""
    own = {name: getattr(settings, name, None) for name in TELLING.get(settings.name, ())[1:]}
    told = ", ".join(f"{k} {written(v)}" for k, v in own.items() if v is not None)
    return f"an encoder {settings.name}{f' ({told})' * bool(told)} of {list(shape)}"


def written(value: Any) -> str:
    """Return a setting as it is typed."""
    if isinstance(value, tuple):
        return f"[{','.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
