"""What a network looks at: `rlplay explain RUN` writes a folder of pictures, a film and one page
that shows them all, and shows the pictures in TensorBoard.

    explain/
      index.html            the page
      filters.png, patches-layer0.png, favourites.png, saliency.png, film.mp4, adversarial.png, ...
      adversarial.json      the numbers behind the curves
      explain.json          of what, with which settings, and which files belong to it

The folder is written under another name and renamed when it is complete. Same run, same settings,
same pictures.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image

from rlplay import run
from rlplay.core import Mistake, Range, nearest
from rlplay.insight import deceive, exhibits
from rlplay.insight.page import Exhibit, page
from rlplay.insight.subject import Subject, load
from rlplay.record import tensorboard_image
from rlplay.settings import convert, parse, to_dict
from rlplay.words import option, positional, say, suggest

MARK = "explain.json"
MOST = 20  # classes or actions that pictures are drawn for, unless named


@dataclass(frozen=True)
class Config:
    num_frames: Annotated[int, Range(1, 40)] = 6
    """Pictures that are explained one by one."""
    num_pictures: Annotated[int, Range(1)] = 500
    """Pictures of the test that are looked through, and attacked, of a perception task."""
    max_steps: Annotated[int, Range(2, 100_000)] = 300
    """Agent steps of the episode that is watched, and at most of each that is attacked."""
    num_episodes: Annotated[int, Range(2, 1000)] = 8
    """Episodes for each size of an attack."""
    names: tuple[str, ...] = ()
    """Classes or actions to draw pictures for; empty for all, of many the first 20."""
    layers: tuple[int, ...] = ()
    """Layers of the encoder to show patches for, from 0; empty for the first and the last."""
    num_units: Annotated[int, Range(1, 1000)] = 16
    """Units of a layer to show."""
    num_patches: Annotated[int, Range(1, 100)] = 8
    """Patches to show for each unit."""
    num_steps: Annotated[int, Range(1)] = 200
    """Steps from noise to a picture that the network would like to see."""
    decay: Annotated[float, Range(0)] = 1.0
    """Lambda: how fast such a picture fades against the slope of its score, brought to size 1."""
    attacks: bool = True
    """Try how easily it is deceived, which takes most of the time."""
    epsilons: tuple[Annotated[int, Range(0, 255)], ...] = ()
    """Sizes of the attacks, grey levels of 255; empty for up to 16 for agents, and up to 64 for
    classifiers, who bear more."""
    patches: tuple[Annotated[float, Range(0, 1)], ...] = (0.1, 0.2, 0.35)
    """Sides of the patches, as shares of the picture's shorter side; empty for none."""
    seed: Annotated[int, Range(0, 2**30)] = 3_000_000
    """Seed of the episode that is watched, of noise and of the choice of pictures."""
    out: str = ""
    """Folder of the page; `explain` in the run's folder where it is left out."""


def from_words(words: list[str], root: Path) -> int:
    """Explain what a command line asks for; return the exit code. Raises Mistake."""
    which, name = option(words, "--checkpoint"), positional(words)
    settings = convert(Config, parse(words), "--", "explain")
    path = explain(run.find(name, root), which, settings, say)
    say(f"the page is {path}")
    suggest(f"tensorboard --runs {root}")
    return 0


def explain(found: run.Run, which: str, settings: Config, announce: Callable[[str], None]) -> Path:
    """Explain a run's best or newest checkpoint, or the one called `which`; return the page's path.
    Raises Mistake where there is nothing to explain, and writes nothing then."""
    out = Path(settings.out) if settings.out else found.folder / "explain"
    if out.exists() and not (out / MARK).is_file():
        raise Mistake(f"{out} is there and is no page of ours: name another folder in --out")
    subject = load(found, which, settings.seed, settings.max_steps, settings.num_pictures, announce)
    announce(f"{subject.name}: {subject.about}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise Mistake(
            f"cannot write to {out.parent}: {error.strerror}; name another folder in --out"
        ) from error
    try:
        now = half / "now"
        now.mkdir()
        shown = list(parts(subject, settings, now, announce))
        finish(subject, settings, now, shown)
        if out.exists():
            out.rename(half / "before")
        now.rename(out)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    show(found, out, subject.step)
    return out / "index.html"


def parts(
    subject: Subject, settings: Config, folder: Path, announce: Callable[[str], None]
) -> Iterator[Exhibit]:
    """Draw one explanation after the other. Raises Mistake where a name or a layer is unknown."""
    seed = settings.seed
    numbers = wanted(subject, settings.names) if subject.judge else []
    weights = exhibits.first_filters(subject, folder, 2 * settings.num_units)
    if weights is not None:
        yield weights
    last = len(subject.encoder.channels) - 1
    for layer in settings.layers or sorted({0, last}):
        yield exhibits.excited(subject, folder, layer, settings.num_units, settings.num_patches)
    if subject.judge is None:
        announce("it chooses nothing, so that there is no choice to explain: filters and patches")
        return
    announce("drawing what it would like to see, and what it looks at")
    yield exhibits.favourites(subject, folder, numbers, seed, settings.num_steps, settings.decay)
    index = chosen_frames(subject, settings.num_frames)
    yield exhibits.looked_at(subject, folder, index, seed)
    if subject.player is not None:
        announce(f"filming {len(subject.pictures)} agent steps")
        yield exhibits.film(subject, folder)
    if settings.attacks:
        yield deceive.deceived(
            subject,
            folder,
            index,
            settings.epsilons,
            settings.patches,
            settings.num_episodes,
            settings.max_steps,
            seed,
            announce,
        )


def wanted(subject: Subject, names: tuple[str, ...]) -> list[int]:
    """Return the numbers of classes or actions. Raises Mistake where there is none of a name."""
    kind = "class" if subject.player is None else "action"
    for name in names:
        if name not in subject.names:
            there = ", ".join(subject.names[:20])
            hint = nearest(name, subject.names) or f"; there are {there}"
            raise Mistake(f"{subject.name} knows no {kind} called {name!r}{hint}")
    return [subject.names.index(name) for name in names] or list(range(len(subject.names)))[:MOST]


def chosen_frames(subject: Subject, num: int) -> list[int]:
    """Return the numbers of pictures to explain: spread over an episode; of a test, half of them
    such as are taken for something else, if there are."""
    total = len(subject.pictures)
    if subject.labels is None:
        return np.unique(np.linspace(total / (2 * num), total - 1, num).astype(int)).tolist()
    is_right = subject.chosen(subject.pictures) == subject.labels
    right, wrong = np.flatnonzero(is_right), np.flatnonzero(~is_right)[: num // 2]
    if not len(right):
        return np.flatnonzero(~is_right)[:num].tolist()
    spread = right[np.linspace(0, len(right) - 1, num - len(wrong)).astype(int)]
    return [*np.unique(spread).tolist(), *wrong.tolist()]


def finish(subject: Subject, settings: Config, folder: Path, shown: list[Exhibit]) -> None:
    """Write the page, and what belongs to it."""
    sizes = {}
    for path in sorted(folder.glob("*.png")):
        width, height = Image.open(path).size
        sizes[path.name] = f'width="{width}" height="{height}"'
    text = page(f"What {subject.name} looks at", subject.about, shown, sizes)
    (folder / "index.html").write_text(text, "utf-8")
    files = sorted(path.name for path in folder.iterdir())
    about = {"run": subject.name, "of": subject.about, "step": subject.step}
    report = {**about, "settings": to_dict(settings), "files": [*files, MARK]}
    (folder / MARK).write_text(json.dumps(report, indent=2) + "\n")


def show(found: run.Run, folder: Path, step: int) -> None:
    """Show the pictures among TensorBoard's images."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(found.folder)) as writer:
        for path in sorted(folder.glob("*.png")):
            tensorboard_image(writer, f"explain/{path.stem}", path.read_bytes(), step)
