"""How much of a game's state the encoders of several runs know, side by side: F1 of its variables
and the error of positions on episodes held out, beside random weights and the pixels.

    python -m benchmarks.probes RUN... --dataset datasets/pong --out benchmarks/results/probes.json

Runs that differ in nothing but the seed are one row, with the mean and the range over the seeds. It
is what `rlplay probe RUN DATASET --maps last` finds, for all maps with `--maps all`, and for the
leading principal components of a map with `--components 128`.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from rlplay import eyes, run
from rlplay.config import Lesson
from rlplay.insight import probe
from rlplay.perception.probes import Config, Judge
from rlplay.settings import to_dict
from rlplay.words import table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="paths of run folders")
    parser.add_argument("--dataset", required=True, type=Path)
    parser.add_argument("--maps", default="last", choices=("all", "last"))
    parser.add_argument("--components", type=int, default=[0], nargs="+", help="0 for all numbers")
    parser.add_argument("--random", type=int, default=2, help="seeds of random weights")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    known: dict[str, Any] = {}
    rows: list[dict[str, Any]] = []
    for name in options.runs:
        found = run.find(name, Path("runs"))
        look = eyes.load(found, "", run.print_to_stderr)
        experiment = found.experiment_any()
        data = to_dict(experiment.data) if isinstance(experiment, Lesson) else {}
        view = json.dumps([look.shape, {**data, "folder": ""}])
        first = view not in known
        if first:
            source = eyes.examples(found, look.shape, options.dataset)
            known[view] = source, Judge(source, Config().min_entropy)
        source, judge = known[view]
        for components in options.components:
            settings = Config(maps=options.maps, components=components, baselines=False)
            if first:
                pixels = probe.features(nn.Identity(), 0, source, settings.max_features)
                row = judge.judge(pixels, components)
                same = {"map": "", "seed": 0, "run": "", "components": components}
                rows.append({"encoder": "pixels"} | same | row)
                for seed in range(options.random):
                    random = probe.reborn(look.encoder, seed)
                    rows += judged("random", seed, "", random, source, judge, settings)
            words, seed = label(experiment), experiment.seed
            rows += judged(words, seed, found.name, look.encoder, source, judge, settings)
            write(options, rows)
    print(table(summary(rows)))


def label(experiment: Any) -> str:
    """Return what a run is called in the table: its task or agent, and of which kind."""
    if not isinstance(experiment, Lesson):
        return experiment.agent.name
    kind = getattr(experiment.task, "kind", "")
    motion = " motion" if getattr(experiment.task, "motion", 0) else ""
    return f"{experiment.task.name} {kind}{motion}".strip()


def judged(
    words: str, seed: int, name: str, encoder: Any, source: Any, judge: Judge, settings: Config
) -> list[dict[str, Any]]:
    layers = probe.by_layer(encoder, source, judge, settings, lambda line: print(words, seed, line))
    same = {"encoder": words, "seed": seed, "run": name, "components": settings.components}
    return [
        {"map": layer.removeprefix("encoder ")} | same | found for layer, found in layers.items()
    ]


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and range over the seeds of every encoder, map and number of features."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["encoder"], row["map"], str(row["components"] or "all")].append(row)
    return [
        {
            "encoder": encoder,
            "map": place,
            "components": size,
            "seeds": str(len(members)),
            "F1": spread([row["mean_f1"] for row in members]),
            "error": spread([row["mean_error"] for row in members if row["mean_error"]]),
            **{name: f"{np.mean([row['f1'][name] for row in members]):.3f}"
               for name in members[0]["f1"]},
            **{f"{name} off": f"{np.mean([row['error'][name] for row in members]):.1f}"
               for name in members[0]["error"]},
        }
        for (encoder, place, size), members in groups.items()
    ]  # fmt: skip


def spread(numbers: list[float]) -> str:
    if not numbers:
        return "-"
    low, high = min(numbers), max(numbers)
    return f"{np.mean(numbers):.3f}" + (f" ({low:.3f} to {high:.3f})" if low < high else "")


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    if options.out:
        found = {"dataset": str(options.dataset), "summary": summary(rows), "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
