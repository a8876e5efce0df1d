"""How much of a game's state an encoder knows, layer by layer: linear probes on its feature maps.

Beside them stand the pixels themselves and the same encoder with random weights. How the probes
work, perception/probes.py says.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay import eyes, plot, run
from rlplay.core import Array, Mistake
from rlplay.nets import hardware
from rlplay.nets.encoders import Encoder
from rlplay.perception.probes import Config, Judge, Report
from rlplay.perception.source import Source
from rlplay.record import tensorboard_image
from rlplay.run import Run
from rlplay.settings import convert, parse
from rlplay.words import flag, option, say, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIGHT = 64  # pictures at once
INKS = {"pixels": ("#b8b8b8",), "random": ("#f5c98a", "#e69f00", "#b87a00", "#7a5200"),
        "encoder": ("#8fc4e8", "#3d94cc", "#0072b2", "#003f66")}  # fmt: skip
"""By whose map it is, from fine to coarse."""


def from_words(words: list[str], root: Path) -> int:
    """Probe what a command line asks for; return the exit code. Raises Mistake."""
    as_json, which = flag(words, "--json"), option(words, "--checkpoint")
    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("-"):
        raise Mistake(
            "`rlplay probe` needs a run and recorded frames, such as"
            " `rlplay probe last datasets/pong`"
        )
    name, folder, *typed = words
    found = run.find(name, root)
    settings = convert(Config, parse(typed), "--", "probe")
    announce = run.print_to_stderr if as_json else say
    report = probe(found, Path(folder), settings, which, announce)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        say(f"{report['about']}, on {report['moments']['test']:,} moments of {report['game']}")
        for what, key in (("F1", "f1"), ("error of positions, in units of RAM", "error")):
            if rows := in_rows(report, key):
                say(f"\n{what}\n{table(rows)}")
        if report["left_out"]:
            say(f"\nleft out, for they hardly vary: {', '.join(report['left_out'])}")
    for path in keep(report, found):
        announce(str(path))
    return 0


def probe(
    found: Run, folder: Path, settings: Config, which: str, announce: Callable[[str], None]
) -> Report:
    """Return what the encoder of a run, or of its checkpoint `which`, knows of the game recorded in
    `folder`. Raises Mistake where the run has no encoder, nothing is known of the game's state, or
    its pictures are not such as the encoder sees."""
    look = eyes.load(found, which, announce)
    source = eyes.examples(found, look.shape, folder)
    judge = Judge(source, settings.min_entropy)
    layers = by_layer(look.encoder, source, judge, settings, announce)
    return {
        "run": found.name,
        "about": look.about,
        "dataset": str(folder),
        "game": source.name,
        "settings": asdict(settings),
        "moments": {name: len(index) for name, index in source.splits.items()},
        "entropy": judge.entropy,
        "left_out": [name for name in source.variables if name not in judge.names],
        "layers": layers,
    }


def by_layer(
    encoder: Encoder,
    source: Source,
    judge: Judge,
    settings: Config,
    announce: Callable[[str], None],
) -> dict[str, Report]:
    """Return by name what the judge finds out of the layers of an encoder, and of the baselines."""
    layers: dict[str, Report] = {}
    for name, features in looks(encoder, source, settings):
        layers[name] = judge.judge(features, settings.components)
        announce(f"{name}: {sentence(layers[name])}")
    return layers


def in_rows(report: Report, key: str) -> list[Report]:
    """Return a table of the layers by variable, with the mean; empty where nothing was judged."""
    layers = report["layers"].items()
    if not all(layer[key] for _, layer in layers):
        return []
    return [
        {"layer": name, "features": f"{layer['features']:,}", "mean": layer[f"mean_{key}"]}
        | layer[key]
        for name, layer in layers
    ]


def keep(report: Report, found: Run) -> list[Path]:
    """Write what was found into the run folder, as JSON and as a bar chart, which TensorBoard shows
    too; return the files."""
    from torch.utils.tensorboard import SummaryWriter

    name = f"probe-{Path(report['dataset']).resolve().name}"
    path = found.folder / f"{name}.json"
    plot.write(path, (json.dumps(report, indent=1) + "\n").encode())
    drawn = plot.save(chart(report), found.folder, name)
    with SummaryWriter(str(found.folder)) as writer:
        tensorboard_image(writer, name.replace("-", "/", 1), drawn[0].read_bytes(), 0)
    return [path, *drawn]


def chart(report: Report) -> Figure:
    """Draw bars of what every layer knows of every variable, and on average."""
    from matplotlib.figure import Figure

    layers = report["layers"]
    panels = [("f1", "F1 on episodes held out; more is better")]
    if all(layer["error"] for layer in layers.values()):
        panels.append(("error", "Error of the position, units of RAM; less is better"))
    with plot.style():
        drawn = Figure((8, 3.1 * len(panels) + 0.6), layout="constrained")
        for i, (key, title) in enumerate(panels):
            axes = drawn.add_subplot(len(panels), 1, i + 1)
            names = ["mean", *next(iter(layers.values()))[key]]
            width = 0.8 / len(layers)
            for j, (layer, found) in enumerate(layers.items()):
                heights = [found[f"mean_{key}"], *found[key].values()]
                places = np.arange(len(names)) + (j - (len(layers) - 1) / 2) * width
                whose, _, level = layer.partition(" map ")
                ink = INKS[whose][min(int(level or 1), len(INKS[whose])) - 1]
                axes.bar(places, heights, width * 0.92, color=ink, label=layer)
            axes.set_xticks(range(len(names)), [name.replace("_", " ") for name in names])
            axes.set_title(title)
            if key == "f1":
                axes.set_ylim(0, 1)
        handles, labels = drawn.axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper left", ncols=5, alignment="left",
                     title=f"{report['game']}: {report['about']}",
                     title_fontproperties={"size": 11, "weight": "bold"})  # fmt: skip
    return drawn


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
        num = len(encoder.channels)
        for level in range(num - 1 if settings.maps == "last" else 0, num):
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
        tall, wide = (max(1, int(length * scale)) for length in size)
        maps = F.adaptive_avg_pool2d(maps, (tall, wide))
    return maps.flatten(1).float()
