"""Does an encoder that has learned to see Breakout help an agent to play it? PPO for 100,000 agent
steps: from scratch; and from the encoder of each of four perception tasks, frozen or fine-tuned.

    python -m benchmarks.transfer [--seeds 3] [--processes 2] [--source segment=RUN] [--arms ...]

First the tasks are trained, one after the other, but for those that a run is named for; then the
agents, `rlplay train breakout/ppo_transfer` each in a process of its own, with one thread, so many
side by side. A frozen encoder that was never trained is the control. What is finished is not done
again, so the same command goes on where it was broken off. Seconds are those of the wall clock,
with imports and evaluation, beside as many others as there are processes. The area is the mean of
the learning curve, the mean score of recent games, from the first game on to the end; scores and
areas are means over seeds with their 95% bootstrap interval. Other settings, such as --num-steps
20000, go to every agent's training. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.policy_gradients import HOME, evaluated, train

OUT = HOME / "benchmarks" / "results" / "transfer.json"
CONFIG = "breakout/ppo_transfer"
TASKS = {
    "autoencode": "breakout/autoencode",
    "contrast": "breakout/contrast",
    "segment": "breakout/segment_agent",
    "RAM": "breakout/classify_ram",
}
"""What teaches to see, and the config of it."""
FROZEN = "--agent.encoder.learn=none"
TUNED = "--agent.encoder.rate-decay=0.5"
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "scratch": ("", ()),
    "random, frozen": ("", (FROZEN,)),
    **{f"{task}, frozen": (task, (FROZEN,)) for task in TASKS},
    **{f"{task}, fine-tuned": (task, (TUNED,)) for task in TASKS},
}
"""Ways to train the agent: the task whose encoder it starts from, and its settings."""
FIGURES = {
    "frozen": ("scratch", *(arm for arm in ARMS if arm.endswith("frozen"))),
    "fine-tuned": ("scratch", *(arm for arm in ARMS if arm.endswith("fine-tuned"))),
}
SCORE = "rollout/ep_score_mean"


def source(task: str, config: str, root: Path) -> Path:
    """Return the run folder of a task, trained now if it is not yet. Raises RuntimeError where that
    fails."""
    done = root / "done.json"
    if not done.exists():
        print(f"{task}: rlplay train {config}", flush=True)
        found = once(root, lambda: trained(config, root))
        print(f"{task}: trained in {found['seconds']:.0f} s", flush=True)
    return Path(json.loads(done.read_text())["folder"])


def trained(config: str, root: Path) -> dict[str, Any]:
    """Train a task once. Raises RuntimeError where the command fails."""
    import subprocess

    root = root / time.strftime("%Y%m%d-%H%M%S")
    root.mkdir(parents=True)
    started = time.perf_counter()
    command = [sys.executable, "-m", "rlplay", "train", config, f"--runs={root}"]
    with (root / "output.txt").open("w") as output:
        code = subprocess.call(command, cwd=HOME, stdout=output, stderr=subprocess.STDOUT)
    found = [file.parent for file in root.glob("*/metrics.jsonl")]
    if code or not found:
        raise RuntimeError(f"rlplay train {config} failed: see {root / 'output.txt'}")
    return {"folder": found[0], "seconds": time.perf_counter() - started}


def once(root: Path, work: Any) -> dict[str, Any]:
    """Return what a training came to: as it was written down, or else done now."""
    from rlplay.run import write_json

    done = root / "done.json"
    if not done.exists():
        found = work()
        write_json(done, found | {"folder": str(found["folder"])})
    return json.loads(done.read_text())


def area(folder: Path) -> float:
    """Return the mean of a run's learning curve over agent steps."""
    from rlplay.curves import logged
    from rlplay.run import Run

    at, score = logged(Run(folder))[SCORE].T
    return float(np.trapezoid(score, at) / (at[-1] - at[0])) if len(at) > 1 else float(score[0])


def row(arm: str, runs: list[dict[str, Any]], more: list[str]) -> dict[str, Any]:
    """Return what the trainings of an arm came to."""
    from rlplay.evaluate import bootstrap_interval

    task, flags = ARMS[arm]
    weights = (f"--agent.encoder.weights=RUN-OF-{TASKS[task]}",) if task else ()
    columns = {
        "score": [run["mean_reward"] for run in runs],
        "area": [area(Path(run["folder"])) for run in runs],
    }
    told = {
        name: {"mean": float(np.mean(values)), "interval": [*bootstrap_interval(np.array(values))]}
        for name, values in columns.items()
    }
    return {
        "command": shlex.join(["rlplay", "train", CONFIG, *weights, *flags, *more]),
        "num_steps": runs[0]["num_steps"],
        **told,
        "seconds_mean": float(np.mean([run["seconds"] for run in runs])),
        "cpu_seconds_mean": float(np.mean([run["cpu_seconds"] for run in runs])),
        "runs": [
            {
                "seed": run["seed"],
                "score": run["mean_reward"],
                "area": round(columns["area"][i], 3),
                "seconds": round(run["seconds"], 1),
                "cpu_seconds": round(run["cpu_seconds"], 1),
            }
            for i, run in enumerate(runs)
        ],
    }


def draw(found: dict[str, list[dict[str, Any]]], folder: Path) -> list[str]:
    """Draw the learning curves into `folder`; return the names of the pictures."""
    from rlplay import plot
    from rlplay.run import Run

    names = []
    for name, arms in FIGURES.items():
        groups = {a: [Run(Path(run["folder"])) for run in found[a]] for a in arms if a in found}
        if len(groups) > 1:
            title = f"Breakout by PPO, encoders {name}"
            png, svg = plot.draw(groups, folder, plot.Config((SCORE,), title=title), name)
            svg.unlink()
            names.append(f"{folder.name}/{png.name}")
    return names


def main() -> int:
    from rlplay.run import system, write_json

    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False, formatter_class=raw)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM",
                        help=f"of {'; '.join(ARMS)}")  # fmt: skip
    parser.add_argument("--source", action="append", default=[], metavar="TASK=RUN",
                        help="the run folder of a task, instead of training it")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each arm")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--runs", type=Path, default=HOME / "runs" / "transfer",
                        help="where the run folders are kept")  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT, help="where the numbers are written")
    given, more = parser.parse_known_args()
    root: Path = given.runs.resolve()
    machine = system() | {"load_before": os.getloadavg()[0], "processes": given.processes}
    named = dict(word.split("=", 1) for word in given.source)
    sources = {
        task: Path(named[task]).resolve() if task in named else source(task, config, root / task)
        for task, config in TASKS.items()
        if any(ARMS[arm][0] == task for arm in given.arms)
    }

    def job(arm: str, seed: int) -> dict[str, Any]:
        task, flags = ARMS[arm]
        place = root / f"{arm.replace(', ', '-').replace(' ', '-')}-s{seed}"
        start = [f"--agent.encoder.weights={sources[task]}"] if task else []
        words = [*start, *flags, *more]
        found = once(place, lambda: train(CONFIG, seed, place, words))
        return found | evaluated(Path(found["folder"]))

    found: dict[str, list[dict[str, Any]]] = {}
    failed = 0
    with ThreadPoolExecutor(given.processes) as pool:  # seed by seed: broken off, all have as many
        jobs = {
            (arm, seed): pool.submit(job, arm, seed)
            for seed in range(given.seeds)
            for arm in given.arms
        }
        for (arm, _), future in jobs.items():
            try:
                found.setdefault(arm, []).append(future.result())
            except RuntimeError as error:
                print(error, file=sys.stderr)
                failed = 1
    rows = {arm: row(arm, found[arm], more) for arm in ARMS if found.get(arm)}
    given.out.parent.mkdir(parents=True, exist_ok=True)
    pictures = draw(found, given.out.with_suffix(""))
    about = " ".join((__doc__ or "").split("\n\n")[0].split())
    learned = {task: str(path.name) for task, path in sources.items()}
    report = {"about": about, "rows": rows, "sources": learned, "pictures": pictures}
    write_json(given.out, report | {"machine": machine})
    print(f"{'':24}{'score':>22}{'area':>22}{'seconds':>9}")
    for arm, told in rows.items():
        print(f"{arm:24}{spelled(told['score'])}{spelled(told['area'])}{told['seconds_mean']:9.0f}")
    return failed


def spelled(known: dict[str, Any]) -> str:
    low, high = known["interval"]
    return f"{known['mean']:7.1f} ({low:5.1f}, {high:5.1f})".rjust(22)


if __name__ == "__main__":
    sys.exit(main())
