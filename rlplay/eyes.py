"""The encoder of any run, an agent's or a perception task's, to look at pictures with: what is
handed on, probed, searched by and explained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args, get_type_hints

import numpy as np
import torch

from rlplay import frozen, run
from rlplay.config import Lesson
from rlplay.core import Mistake
from rlplay.nets import backbones, encoders
from rlplay.nets.encoders import Encoder
from rlplay.perception.data import Config as Data
from rlplay.perception.source import Source

Announce = Callable[[str], None]
PREFIXES = ("encoder.", "trunk.encoder.")
"""What the names of an encoder's weights begin with: in value networks and tasks, in policies."""
NAMES = get_args(get_type_hints(encoders.Config)["name"])


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


def examples(found: run.Run, shape: tuple[int, int, int], folder: Path) -> Source:
    """Return recorded play as the encoder of a run is used to see it, given the `shape` of its
    pictures. A task that learned from recorded play gets it in the same size and colours and, of
    the same recording, in the same splits; an agent, grey and stacked; others in colours where they
    have three channels. Raises Mistake where there is no such recording, or it does not fit."""
    experiment = found.experiment_any()
    channels, height, width = shape
    coloured = isinstance(experiment, Lesson) and channels == 3
    settings = Data(
        size=height if height == width else 0,
        grey=not coloured,
        num_stacked=1 if coloured else min(channels, 16),
    )
    if isinstance(experiment, Lesson) and experiment.data.name == "frames":
        settings = experiment.data
    source = dataclasses.replace(settings, name="frames", folder=str(folder)).make()
    if source.shape != shape:
        mine, theirs = ("x".join(map(str, sizes)) for sizes in (shape, source.shape))
        raise Mistake(
            f"the encoder of {found.name} sees pictures of {mine}, channels x height x width, but"
            f" the frames in {folder} are {theirs}: name another dataset"
        )
    return source
