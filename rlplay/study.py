"""Several trainings that differ in some settings, and their picture: a figure of a book, a
comparison, a parameter study. It is a config with `variants` (config.py) and `plot` (plot.py).

    runs/sutton_barto-figure_2_2-<time>/
      study.yaml         how to draw it, and which run folder is which variant
      000-ucb1/          a run folder for each training
      plot.png, .svg

What is finished is seen in these folders, so that beginning a study and going on with it are one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from rlplay import checkpoint, config, plot, run, transfer
from rlplay.core import Mistake
from rlplay.run import Run, runs, unwritable, write
from rlplay.settings import Dumper, Loader, convert, to_dict
from rlplay.train import Training

FILE = "study.yaml"


def create(name: str, overrides: Sequence[str], root: Path) -> Path:
    """Make the folder of a new study of a config, by path or short name. Raises Mistake where the
    config is wrong, or `root` cannot be written."""
    file, settings = config.read(name)
    drawn = convert(plot.Config, settings.get("plot", {}), file, "plot")
    stem = name.removesuffix(".yaml").strip("./").replace("/", "-")
    folder = root / f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    found = [
        (label, value, transfer.located(experiment, root))
        for label, value, experiment in config.variants(name, overrides)
    ]
    rows = []
    try:
        for i, (label, value, experiment) in enumerate(found):
            place = folder / f"{i:03d}-{experiment.agent.name}"
            place.mkdir(parents=True)
            write(place / "config.yaml", config.dump(experiment))
            rows.append({"label": label, "value": value, "run": place.name})
        study = {"config": name, "plot": to_dict(drawn), "variants": rows}
        write(folder / FILE, yaml.dump(study, Dumper=Dumper, sort_keys=False, allow_unicode=True))
    except OSError as error:
        raise unwritable(root, error) from error
    return folder


def find(name: str, root: Path) -> Path | None:
    """Return the folder of the study that `name` means: a path, the unique beginning of a name
    under `root`, or `last` where no run is newer; None where it means none."""
    if (Path(name) / FILE).is_file():
        return Path(name)
    there = folders(root)
    if name == "last" and there:
        newer = (there[-1] / FILE).stat().st_mtime
        newest = [run.folder / "config.yaml" for run in runs(root)[-1:]]
        return there[-1] if all(file.stat().st_mtime < newer for file in newest) else None
    found = [folder for folder in there if folder.name.startswith(name)]
    return found[0] if len(found) == 1 else None


def folders(root: Path) -> list[Path]:
    """Return the folders of the studies under `root`, oldest first."""
    files = sorted(root.glob(f"*/{FILE}"), key=lambda file: (file.stat().st_mtime, file))
    return [file.parent for file in files]


def state(folder: Path) -> dict[str, Any]:
    """Return where a study stands, as `run.state` does of a run: steps over all its trainings."""
    trained = [Run(folder / row["run"]) for row in read(folder)["variants"]]
    states = [run.state(one) for one in trained]
    return {
        "name": folder.name,
        "steps": sum(one["steps"] for one in states),
        "score": None,
        "checkpoints": sum(one["checkpoints"] for one in states),
    }


def go(folder: Path, announce: Callable[[str], None], command: list[str]) -> int:
    """Train what is not trained yet, one after the other, and draw the picture; return the exit
    code. Raises Mistake."""
    rows = read(folder)["variants"]
    for i, row in enumerate(rows, 1):
        value = "" if row["value"] is None else f" {row['value']:g}"
        name = f"[{i}/{len(rows)}] {row['label']}{value}"
        member, started = Run(folder / row["run"]), time.perf_counter()
        with member.locked():
            begun = bool(checkpoint.names(member.checkpoints))
            training = Training(member.experiment(), quiet, begins=not begun)
            if begun:
                training.restore(checkpoint.newest(member.checkpoints, announce)[1])
            if training.steps >= training.experiment.num_steps:
                continue
            member.describe(training.experiment, training.env.spec)
            member.start(command)
            code = training.run(member)
        seconds = time.perf_counter() - started
        announce(f"{name}: {training.steps:,} agent steps in {seconds:.1f} s")
        if code:
            return code
    for path in draw(folder):
        announce(f"drew {path}")
    return 0


def draw(folder: Path, changes: dict[str, Any] | None = None) -> list[Path]:
    """Draw the picture of a study, with `changes` to how it is drawn; return its files. Raises
    Mistake."""
    study = read(folder)
    drawn = convert(plot.Config, study["plot"] | (changes or {}), str(folder / FILE), "plot")
    points: dict[str, list[tuple[float, list[Run]]]] = {}
    for row in study["variants"]:
        member, value = Run(folder / row["run"]), row["value"]
        points.setdefault(row["label"], []).append((0.0 if value is None else value, [member]))
    if drawn.x == "value":
        return plot.draw_study(points, folder, drawn)
    labelled = {label: [one for _, some in of for one in some] for label, of in points.items()}
    return plot.draw(labelled, folder, drawn)


def read(folder: Path) -> dict[str, Any]:
    """Return what `create` wrote. Raises Mistake where that is no study."""
    try:
        return yaml.load((folder / FILE).read_text("utf-8"), Loader)
    except OSError as error:
        raise Mistake(f"{folder / FILE} cannot be read: {error.strerror}") from error


def quiet(sentence: str) -> None:
    """Say nothing of the single trainings."""
