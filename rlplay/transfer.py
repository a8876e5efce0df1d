"""An encoder is handed on: any agent's from any run's, and a perception task's likewise.

It fits where its layers have the same kernels, channels and strides. A convolution does not ask for
a picture's size, so that may differ; what lies behind the encoder starts anew. It is taken over
once, when a run begins: from then on its checkpoints hold it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import torch

from rlplay import frozen, run
from rlplay.config import Experiment, Lesson
from rlplay.core import Agent, AgentConfig, Mistake, Spec
from rlplay.eyes import Announce, Origin, origin
from rlplay.nets import backbones, encoders
from rlplay.nets.encoders import Encoder

Kind = TypeVar("Kind", Experiment, Lesson, Experiment | Lesson)
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
