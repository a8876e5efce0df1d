"""What the presets of policy gradients reach: each trained from several seeds, its final agent
scored by the protocol in its config, and its learning curves drawn.

    python benchmarks/policy_gradients.py [--presets cartpole/ppo ...] [--seeds 5] [--processes 2]

A training is the whole command `rlplay train` in a process of its own, with one thread; its seconds
are those of the wall clock, with imports, evaluation and recording, beside as many others as there
are processes. A preset's score is the mean over seeds of what each seed's last evaluation came to,
with its 95% bootstrap interval over seeds. Rows of presets that are not named stay as they were.
Other settings, such as --num-steps 1000, go to every training. Linux and macOS only.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

HOME = Path(__file__).resolve().parent.parent
OUT = HOME / "benchmarks" / "results" / "policy_gradients.json"
FORGETFUL = "cartpole/ppo_recurrent --agent.recurrent.name none"
GOALS: dict[str, float | None] = {
    "cartpole/reinforce": 475,
    "cartpole/a2c": 475,
    "cartpole/ppo": 475,
    "cartpole/pqn": 475,
    "lunar_lander/ppo": 200,
    "pendulum/sb3_sac": -200,
    "pendulum/ppo": -200,
    "tictactoe/ppo": None,  # the perfect player comes to 0.913 (0.900 to 0.926) in 1,000 games
    "cartpole/ppo_recurrent": 400,
    FORGETFUL: None,  # is to fail
}
"""What the mean score should be at least, by what follows `rlplay train`."""


def train(words: str, seed: int, root: Path, more: list[str]) -> dict[str, Any]:
    """Train once, in an empty folder below `root`; return the run folder, its last evaluation and
    what it cost. Raises RuntimeError where the command fails."""
    root = root / f"{time.strftime('%Y%m%d-%H%M%S')}-s{seed}"
    root.mkdir(parents=True)
    command = ["train", *words.split(), f"--seed={seed}", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    with (root / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlplay", *command, f"--runs={root}"],
            cwd=HOME, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    found = [file.parent for file in root.glob("*/metrics.jsonl")]
    if process.returncode or not found:
        raise RuntimeError(f"{shlex.join(command)} failed: see {root / 'output.txt'}")
    known = evaluated(found[0])
    print(f"{words}, seed {seed}: {known['mean_reward']:.5g} in {seconds:.0f} s", flush=True)
    cost = {"seconds": seconds, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    return {"seed": seed, "folder": found[0], **cost, **known}


def evaluated(folder: Path) -> dict[str, Any]:
    """Return the last evaluation in the log of a run, at how many agent steps it was, and how many
    there were."""
    from rlplay.run import read_lines

    lines = [one for one in read_lines(folder / "metrics.jsonl") if "eval/mean_reward" in one]
    last = {name.removeprefix("eval/"): value for name, value in lines[-1].items()}
    return {"num_steps": last["step"], "evaluations": len(lines), **last}


def row(words: str, runs: list[dict[str, Any]], more: list[str]) -> dict[str, Any]:
    """Return what the trainings of a preset came to."""
    from rlplay.evaluate import bootstrap_interval

    scores, goal = np.array([run["mean_reward"] for run in runs]), GOALS[words]
    low, high = bootstrap_interval(scores)
    return {
        "command": shlex.join(["rlplay", "train", *words.split(), "--seed", "SEED", *more]),
        "num_steps": runs[0]["num_steps"],
        "episodes": runs[0]["episodes"],
        "mean": float(scores.mean()),
        "interval": [low, high],
        "goal": goal,
        "seeds_at_goal": None if goal is None else int((scores >= goal).sum()),
        "seconds_mean": float(np.mean([run["seconds"] for run in runs])),
        "runs": [
            {
                "seed": run["seed"],
                "score": run["mean_reward"],
                "interval": [run["ci_low"], run["ci_high"]],
                "seconds": round(run["seconds"], 1),
                "cpu_seconds": round(run["cpu_seconds"], 1),
            }
            for run in runs
        ],
    }


def draw(words: str, runs: list[dict[str, Any]], folder: Path) -> str:
    """Draw the learning curves of a preset into `folder`, of evaluations where it has them; return
    the name of the picture."""
    from rlplay import plot
    from rlplay.run import Run

    name = words.replace("/", "-").replace(" --agent.recurrent.name ", "-memory-")
    members = {words: [Run(run["folder"]) for run in runs]}
    often = all(run["evaluations"] > 1 for run in runs)
    metric = "eval/mean_reward" if often else "rollout/ep_score_mean"
    png, svg = plot.draw(members, folder, plot.Config((metric,), title=words), name)
    svg.unlink()
    return f"{folder.name}/{png.name}"


def main() -> int:
    from rlplay.run import system, write_json

    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    names = list(dict.fromkeys(words.split()[0] for words in GOALS))
    parser.add_argument("--presets", nargs="+", choices=names, default=names, metavar="PRESET",
                        help=f"of {', '.join(names)}")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each preset")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--runs", type=Path, default=HOME / "runs" / "policy_gradients",
                        help="where the run folders are kept")  # fmt: skip
    parser.add_argument("--out", type=Path, default=OUT, help="where the numbers are written")
    given, more = parser.parse_known_args()
    known = json.loads(given.out.read_text())["rows"] if given.out.exists() else {}
    about = " ".join((__doc__ or "").split("\n\n")[0].split())
    machine = system() | {"load_before": os.getloadavg()[0], "processes": given.processes}
    chosen = [words for words in GOALS if words.split()[0] in given.presets]
    jobs: dict[str, list[Future[dict[str, Any]]]] = {}
    failed, runs = 0, given.runs.resolve()
    with ThreadPoolExecutor(given.processes) as pool:
        for words in chosen:
            place = runs / words.replace("/", "-").replace(" ", "-")
            jobs[words] = [
                pool.submit(train, words, seed, place, more) for seed in range(given.seeds)
            ]
        for words, futures in jobs.items():
            try:
                found = [future.result() for future in futures]
            except RuntimeError as error:
                print(error, file=sys.stderr)
                failed = 1
                continue
            given.out.parent.mkdir(parents=True, exist_ok=True)
            picture = draw(words, found, given.out.with_suffix(""))
            known[words] = row(words, found, more) | {"picture": picture, "machine": machine}
            rows = {name: known[name] for name in GOALS if name in known}
            write_json(given.out, {"about": about, "rows": rows})
            mean, (low, high) = known[words]["mean"], known[words]["interval"]
            print(f"{words}: {mean:.5g} ({low:.5g} to {high:.5g}), goal {GOALS[words]}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
