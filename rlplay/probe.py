"""How much of a game's state an encoder knows, layer by layer: linear probes on its feature maps.

Beside them stand the pixels themselves and the same encoder with random weights. Large maps are
averaged down to `max_features` numbers. How the probes work, perception/probes.py says.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay import eyes
from rlplay.core import Array
from rlplay.nets import hardware
from rlplay.nets.encoders import Encoder
from rlplay.perception.data import Source
from rlplay.perception.probes import Config, Report, State
from rlplay.run import Run

SIGHT = 64  # pictures at once


def probe(
    found: Run, folder: Path, settings: Config, which: str, announce: Callable[[str], None]
) -> Report:
    """Return what the encoder of a run, or of its checkpoint `which`, knows of the game recorded in
    `folder`. Raises Mistake where the run has no encoder, nothing is known of the game's state, or
    its pictures are not such as the encoder sees."""
    look = eyes.load(found, which, announce)
    source = eyes.examples(found, look.shape, folder)
    state = State(source, settings.min_entropy)
    layers: dict[str, Report] = {}
    for name, features in looks(look.encoder, source, settings):
        layers[name] = state.judge(features, settings)
        announce(f"{name}: {sentence(layers[name])}")
    return {
        "run": found.name,
        "about": look.about,
        "dataset": str(folder),
        "game": source.name,
        "settings": asdict(settings),
        "moments": {name: len(index) for name, index in source.splits.items()},
        "entropy": state.entropy,
        "left_out": [name for name in source.variables if name not in state.names],
        "layers": layers,
    }


def sentence(layer: Report) -> str:
    error = f", off by {layer['mean_error']:.2f} in position" if layer["error"] else ""
    return f"F1 {layer['mean_f1']:.3f}{error}, {layer['features']:,} features"


def looks(encoder: Encoder, source: Source, settings: Config) -> Iterator[tuple[str, Array]]:
    """Yield by name the features [n, F] float32 of all moments: of the encoder's maps and, where
    wanted, of the baselines."""
    if settings.baselines:
        yield "pixels", features(nn.Identity(), 0, source, settings.max_features)
    both = {"random": reborn(encoder, settings.seed)} if settings.baselines else {}
    for name, one in {**both, "encoder": encoder}.items():
        for level in range(len(encoder.channels)):
            found = features(one, level, source, settings.max_features)
            yield f"{name} map {level + 1}", found


def reborn(encoder: Encoder, seed: int) -> Encoder:
    """Return an encoder of the same architecture with new random weights."""
    new = copy.deepcopy(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in new.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return new


@torch.inference_mode()
def features(network: nn.Module, level: int, source: Source, most: int) -> Array:
    """Return a map of an encoder, or of the identity its picture, flattened, [n, F] float32 with
    F <= `most` wherever there are no more channels than that."""
    device, rows = hardware.device("auto"), []
    network.to(device)
    num = source.arrays["picture"].shape[0]
    for first in range(0, num, SIGHT):
        index = np.arange(first, min(first + SIGHT, num))
        picture = torch.from_numpy(source.arrays["picture"][index]).to(device).float() / 255
        seen = network(picture)
        rows.append(coarse(seen[level] if isinstance(seen, list) else seen, most).cpu())
    return torch.cat(rows).numpy()


def coarse(maps: Tensor, most: int) -> Tensor:
    """Return maps [B, C, H, W] flattened, averaged down where they have more than `most` numbers
    each."""
    _, channels, *size = maps.shape
    scale = (most / (channels * size[0] * size[1])) ** 0.5
    if scale < 1:
        maps = F.adaptive_avg_pool2d(maps, [max(1, int(length * scale)) for length in size])
    return maps.flatten(1).float()
