"""Do SB3's PPO and DQN learn under our loop what they learn alone? Learning curves on CartPole, of
several seeds, by both loops, with the settings of configs/cartpole/sb3_*.yaml.

    python benchmarks/sb3_agreement.py [--seeds 10] [--processes 2] [--share 1.0] [--out FILE]

A curve is the mean return of the episodes that ended in each tenth of the training, in transitions
played: the moment that an episode's end costs our loop counts for neither. What is compared of two
loops is the return over the whole training, one number for each seed: they agree where the 95%
interval of the difference of means (Welch) holds 0, and no tenth lies apart by more than chance
would have it (Holm). A third side, the same algorithm with a tenth of its learning rate, must be
told apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parent / "results" / "sb3_agreement.json"
POINTS = 10  # of a curve
SIDES = ("alone", "ours", "slow")
Ending = tuple[int, float]
"""Transitions so far, and the return of an episode that ended there."""


def experiment(algorithm: str) -> Any:
    from rlplay import config

    return config.load(f"cartpole/sb3_{algorithm}")


def alone(algorithm: str, seed: int, num_steps: int) -> list[Ending]:
    """Return the episodes of SB3's own loop, in envs of its own making."""
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    from agents import _sb3_model

    class Endings(BaseCallback):
        def _on_step(self) -> bool:
            infos = [info for info in self.locals["infos"] if "episode" in info]
            found.extend((self.num_timesteps, float(info["episode"]["r"])) for info in infos)
            return True

    found: list[Ending] = []
    settings = experiment(algorithm)
    env, agent = settings.env, settings.agent
    kind, _ = _sb3_model.ALGORITHMS[algorithm]
    hyperparameters = _sb3_model.adapted(kind, agent.hyperparameters, env.make().spec)
    kwargs = {name: list(value) for name, value in agent.policy_kwargs.items()}
    worlds = make_vec_env(env.id, env.num_envs, seed)
    model: Any = kind(
        "MlpPolicy", worlds, seed=seed, device="cpu", policy_kwargs=kwargs, **hyperparameters
    )
    model.learn(num_steps, Endings())
    return found


def ours(algorithm: str, seed: int, num_steps: int, rate: float = 1.0) -> list[Ending]:
    """Return the episodes of our loop; `rate` is a factor on the learning rate."""
    from rlplay.play import collect, play

    settings = experiment(algorithm)
    env, given = settings.env.make(), dict(settings.agent.hyperparameters)
    learning_rate = str(given["learning_rate"])
    falls, number = learning_rate.startswith("lin_"), float(learning_rate.removeprefix("lin_"))
    given["learning_rate"] = f"lin_{number * rate}" if falls else number * rate
    chosen = replace(settings.agent, hyperparameters=given, total_timesteps=num_steps)
    agent: Any = chosen.make(env.spec, seed)
    found: list[Ending] = []
    returns, seen = np.zeros(env.spec.num_envs), 0
    moments = play(env, agent, env.reset(seed))
    while agent.model.num_timesteps < num_steps:
        trajectory = collect(moments, agent.horizon)
        agent.learn(trajectory)
        step = trajectory.step
        for t in range(len(step.done) - 1):
            seen += int((~step.done[t]).sum())
            returns += step.reward[t + 1, :, 0]
            found += [(seen, float(value)) for value in returns[step.done[t + 1]]]
            returns[step.done[t + 1]] = 0
    return found


def run(job: tuple[str, str, int, float]) -> dict[str, Any]:
    """Train once; return its curve [POINTS], NaN where no episode ended, and its seconds."""
    import torch

    torch.set_num_threads(1)
    algorithm, side, seed, share = job
    num_steps = int(share * experiment(algorithm).num_steps)
    started = time.perf_counter()
    if side == "alone":
        found = alone(algorithm, seed, num_steps)
    else:
        found = ours(algorithm, seed, num_steps, 0.1 if side == "slow" else 1.0)
    seconds = time.perf_counter() - started
    tenth = np.array([min(steps * POINTS // num_steps, POINTS - 1) for steps, _ in found])
    returns = np.array([value for _, value in found])
    parts = [returns[tenth == i] for i in range(POINTS)]
    curve = [float(part.mean()) if len(part) else float("nan") for part in parts]
    print(f"{algorithm} {side} seed {seed}: {np.nanmean(curve):.1f} in {seconds:.0f} s", flush=True)
    return {"algorithm": algorithm, "side": side, "seed": seed, "curve": curve, "seconds": seconds}


def compare(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Compare the curves [S, POINTS] of two sides."""
    from scipy import stats

    totals = [np.nanmean(curves, axis=1) for curves in (one, other)]
    interval = stats.ttest_ind(*totals, equal_var=False).confidence_interval()
    chances = stats.ttest_ind(one, other, equal_var=False, nan_policy="omit").pvalue
    chances = np.sort(np.asarray(chances)[np.isfinite(chances)])
    apart = chances * np.arange(len(chances), 0, -1) < 0.05  # Holm
    low, high = float(interval.low), float(interval.high)
    return {
        "difference": float(totals[1].mean() - totals[0].mean()),
        "interval": [-high, -low],
        "agree": bool(low <= 0 <= high and not apart[:1].any()),
    }


def summary(runs: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield for each algorithm the mean and the deviation of each side, and how they compare."""
    for algorithm in dict.fromkeys(found["algorithm"] for found in runs):
        curves = {
            side: np.array(
                [r["curve"] for r in runs if (r["algorithm"], r["side"]) == (algorithm, side)]
            )
            for side in SIDES
        }
        told: dict[str, Any] = {}
        for side, rows in curves.items():
            spread = rows.std(0, ddof=1) if len(rows) > 1 else np.full(POINTS, np.nan)
            told[side] = {"mean": rows.mean(0).tolist(), "deviation": spread.tolist()}
        if len(curves["alone"]) > 1:
            told["alone and ours"] = compare(curves["alone"], curves["ours"])
            told["alone and slow"] = compare(curves["alone"], curves["slow"])
        yield algorithm, told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="trainings of each side")
    parser.add_argument("--processes", type=int, default=2, help="trainings side by side")
    parser.add_argument("--share", type=float, default=1.0, help="of the length of a training")
    parser.add_argument("--out", type=Path, default=OUT, help="where the numbers are written")
    given = parser.parse_args()
    jobs = [
        (algorithm, side, seed, given.share)
        for seed in range(given.seeds)
        for algorithm in ("ppo", "dqn")
        for side in SIDES
    ]
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(run, jobs))
    results = dict(summary(runs))
    given.out.write_text(json.dumps({"results": results, "runs": runs}, indent=1) + "\n")
    for algorithm, told in results.items():
        for pair in ("alone and ours", "alone and slow"):
            if pair in told:
                low, high = told[pair]["interval"]
                words = "agree" if told[pair]["agree"] else "differ"
                print(f"{algorithm}, {pair}: {words}, difference {told[pair]['difference']:.1f}"
                      f" ({low:.1f} to {high:.1f})")  # fmt: skip


if __name__ == "__main__":
    main()
