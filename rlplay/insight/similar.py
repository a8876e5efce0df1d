"""The frames that a run's encoder takes for most alike: the nearest neighbours of one among its
coarsest feature maps. How alike is measured, perception/neighbours.py says."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from PIL import Image

from rlplay import eyes, plot, run
from rlplay.config import Lesson
from rlplay.core import Array, Mistake, Range
from rlplay.palette import SLATE, SNOW
from rlplay.perception import gallery, neighbours
from rlplay.perception.data import Config as Data
from rlplay.perception.pictures import grey, resized
from rlplay.perception.source import Source
from rlplay.run import Run
from rlplay.settings import convert, parse
from rlplay.words import option, say, table

SIGHT = 64  # pictures at once


@dataclass(frozen=True)
class Config:
    dataset: str = ""
    """Folder of the frames to look among; of a perception task, what it learned from where this is
    left out."""
    num: Annotated[int, Range(1, 100)] = 8
    """How many."""
    out: str = ""
    """The picture that is written; similar-FRAME.png in the run folder where it is left out."""


class Neighbour(NamedTuple):
    """A frame that looks like another."""

    number: int
    episode: int
    distance: float  # 0 to 2


def from_words(words: list[str], root: Path) -> int:
    """Search for what a command line asks for; return the exit code. Raises Mistake."""
    which = option(words, "--checkpoint")
    if len(words) < 2 or words[0].startswith("-") or words[1].startswith("--"):
        raise Mistake(
            "`rlplay similar` needs a run and a frame, a number in the dataset or a picture file,"
            " such as `rlplay similar last 100`"
        )
    name, frame, *typed = words
    found = run.find(name, root)
    settings = convert(Config, parse(typed), "--", "similar")
    folder = Path(settings.dataset or usual(found))
    look = eyes.load(found, which, say)
    source = eyes.examples(found, look.shape, folder)
    query = asked(frame, source)
    best = nearest(look, source, query, settings.num)
    say(f"{look.about}: most like {frame} of {folder} are")
    say(table([{**one._asdict(), "distance": f"{one.distance:.4f}"} for one in best]))
    path = Path(settings.out or found.folder / f"similar-{Path(frame).stem}.png")
    write(path, drawn(frame, query, best, folder))
    say(str(path))
    return 0


def usual(found: Run) -> str:
    """Return the folder of the frames that a run learned from. Raises Mistake where it did not."""
    experiment = found.experiment_any()
    if isinstance(experiment, Lesson) and experiment.data.name == "frames":
        return experiment.data.folder
    raise Mistake(f"{found.name} did not learn from recorded frames: name some with --dataset")


def asked(frame: str, source: Source) -> Array:
    """Return the picture [C, H, W] uint8 that is a moment's number in the source, or a file, whose
    picture stands for all moments of a stack. Raises Mistake where it is neither."""
    channels, height, width = source.shape
    if frame.lstrip("-").isdecimal():
        num = source.arrays["picture"].shape[0]
        if not 0 <= int(frame) < num:
            raise Mistake(f"there is no frame {frame}: they are numbered 0 to {num - 1}")
        return source.arrays["picture"][np.array([int(frame)])][0]
    try:
        with Image.open(frame) as opened:
            picture = np.asarray(opened.convert("RGB"), np.uint8).transpose(2, 0, 1)[None]
    except FileNotFoundError as error:
        raise Mistake(
            f"{frame!r} is neither a frame's number nor a picture file: name one of them"
        ) from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Mistake(f"{frame} cannot be read as a picture: name another one") from error
    if picture.shape[2:] != (height, width):
        if height != width:
            raise Mistake(
                f"{frame} has {picture.shape[2]}x{picture.shape[3]} pixels, but the encoder sees"
                f" pictures of {height}x{width}: name one of that size"
            )
        picture = resized(grey(picture) if channels != 3 else picture, height)
    elif channels != 3:
        picture = grey(picture)
    if channels % picture.shape[1]:
        raise Mistake(f"{frame} has no {channels} channels: name a frame's number instead")
    return np.tile(picture[0], (channels // len(picture[0]), 1, 1))


@torch.inference_mode()
def nearest(look: eyes.Eyes, source: Source, query: Array, num: int) -> list[Neighbour]:
    """Return the `num` moments of a source that look most like a picture [C, H, W], nearest
    first."""
    pictures = source.arrays["picture"]
    every = np.arange(pictures.shape[0])
    parts = np.array_split(every, len(every) // SIGHT + 1)
    known = neighbours.features(look.encoder, (shown(pictures[part]) for part in parts))
    wanted = neighbours.features(look.encoder, [shown(query[None])])
    distance = neighbours.distances(wanted, known)
    best = neighbours.nearest(distance, num)[0].tolist()
    episode = source.arrays["episode"][:]
    return [Neighbour(n, int(episode[n]), max(0.0, float(distance[0, n]))) for n in best]


def shown(pictures: Array) -> torch.Tensor:
    return torch.from_numpy(pictures).float() / 255


def drawn(frame: str, query: Array, best: list[Neighbour], folder: Path) -> Array:
    """Return a sheet [H, W, 3] uint8 of the frames as a person sees them; the query first, which if
    it is a file is shown as the encoder sees it."""
    number = int(frame) if frame.isdecimal() else None
    screens = whole(folder, [one.number for one in best] + ([] if number is None else [number]))
    height, width = screens.shape[2:]
    if number is None:
        bright = Image.fromarray(query[-1] if len(query) != 3 else query.transpose(1, 2, 0))
        first = np.asarray(bright.convert("RGB").resize((width, height))).transpose(2, 0, 1)
    else:
        first = screens[-1]
    captions = [f"frame {number}" if number is not None else Path(frame).name[:24]]
    captions += [f"{one.number}  e{one.episode}  {one.distance:.3f}" for one in best]
    inks = [SNOW] + [SLATE] * len(best)
    cells = np.stack([first, *screens[: len(best)]])
    return gallery.grid(cells, captions, inks, columns=min(len(cells), 3 if len(cells) == 9 else 5))


def whole(folder: Path, numbers: list[int]) -> Array:
    """Return frames in colours and full size, [n, 3, H, W] uint8."""
    full = Data(name="frames", folder=str(folder)).make()
    return full.arrays["picture"][np.array(numbers)]


def write(path: Path, picture: Array) -> None:
    """Write a PNG whole. Raises Mistake where it cannot be written."""
    encoded = BytesIO()
    Image.fromarray(picture).save(encoded, "png")
    try:
        plot.write(path, encoded.getvalue())
    except OSError as error:
        raise Mistake(f"cannot write {path}: {error.strerror}; name another in --out") from error
