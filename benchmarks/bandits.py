"""rlplay on bandits beside its peers on the same machine, and beside the numbers of the literature.

    python benchmarks/bandits.py speed [--rounds R] [--out FILE]
    python benchmarks/bandits.py testbed [--out FILE]

speed: pulls a second of UCB1 with alpha = sqrt 2 on the 10-armed testbed, 2000 runs of 1000 pulls.
All sides run in this process on one core, compiled before the clock starts; a round runs each side
once, the next one in reverse, and ratios are taken within a round. MABWiser (Strong et al. 2021)
knows one run at a time and is given one of 2000 pulls.
testbed: what the agents earn, beside reference values computed with other random numbers.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numba import njit

from agents import epsilon_greedy, gradient_bandit, ucb1, ucb1_tuned
from envs import bandit
from rlplay.core import Array
from rlplay.play import collect, play
from rlplay.run import system, write_json

RESULTS = Path(__file__).parent / "results"
NUM_RUNS, NUM_ARMS, NUM_PULLS, ALPHA = 2000, 10, 1000, 2**0.5
GOALS = {"MABWiser": 500.0, "numpy": 1.0}  # our rate over theirs

AVERAGE = ("all steps", "last 100", "% optimal in the last 100")
TESTBED = {  # agent, and what it earns on average: reference values
    "greedy": (epsilon_greedy.Config(epsilon=0), (1.044, 1.053, 36.1)),
    "epsilon 0.01": (epsilon_greedy.Config(epsilon=0.01), (1.207, 1.318, 59.4)),
    "epsilon 0.1": (epsilon_greedy.Config(epsilon=0.1), (1.303, 1.363, 78.8)),
    "UCB, c = 2": (ucb1.Config(alpha=2**0.5), (1.387, 1.487, 85.6)),
    "UCB, c = 1": (ucb1.Config(alpha=0.5**0.5), (1.475, 1.522, 91.9)),
    "optimistic, Q0 = 5, step 0.1": (
        epsilon_greedy.Config(epsilon=0, step_size=0.1, initial_mean=5.0),
        (1.294, 1.500, 86.1),
    ),
    "gradient, step 0.1, baseline": (gradient_bandit.Config(step_size=0.1), (1.350, 1.502, 85.8)),
}
REGRET = {  # arms, and the mean regret of 10,000 pulls by UCB1 and by UCB1-Tuned
    "(.9, .6)": ((0.9, 0.6), (47.9, 6.9)),
    "(.9, .8)": ((0.9, 0.8), (88.7, 18.2)),
    "(.9, .6 x 9)": ((0.9, *[0.6] * 9), (414, 63)),
    "(.9, .8 x 9)": ((0.9, *[0.8] * 9), (593, 157)),
}


def learning(env: Any, agent: Any, seed: int, num_pulls: int) -> Iterator[Mapping[str, Array]]:
    """Play and learn as `rlplay train` does between two lines of its log; yield what the world
    knows of each pull."""
    moments = play(env, agent, env.reset(seed))
    for _ in range(num_pulls):
        moment = next(moments)
        agent.learn(collect([moment], 1))
        yield moment.following.measures or {}


# The sides of `speed`: each returns the mean reward and the share of optimal pulls, over the runs,
# of every pull: [T, 2].


def rlplay(seed: int, num_pulls: int) -> Array:
    env = bandit.Config(num_envs=NUM_RUNS, problem_seed=seed, max_steps=num_pulls).make()
    agent = ucb1.Config(alpha=ALPHA).make(env.spec, seed)
    seen = learning(env, agent, seed, num_pulls)
    return np.array([(now["reward"].mean(), now["optimal_action"].mean()) for now in seen])


def numpy_plain(seed: int, num_pulls: int) -> Array:
    """As one writes it down: all runs at once, one pull after the other."""
    random = np.random.default_rng(seed)
    mean = random.standard_normal((NUM_RUNS, NUM_ARMS))
    best, runs = mean.argmax(1), np.arange(NUM_RUNS)
    count, value = np.zeros_like(mean), np.zeros_like(mean)
    curve = np.empty((num_pulls, 2))
    for t in range(num_pulls):
        if t < NUM_ARMS:
            action = np.full(NUM_RUNS, t)
        else:
            action = (value + ALPHA * np.sqrt(2 * np.log(t) / count)).argmax(1)
        reward = mean[runs, action] + random.standard_normal(NUM_RUNS)
        count[runs, action] += 1
        value[runs, action] += (reward - value[runs, action]) / count[runs, action]
        curve[t] = reward.mean(), (action == best).mean()
    return curve


def numpy_tuned(seed: int, num_pulls: int) -> Array:
    """The same with flat indices and without new arrays: as fast as numpy was found to do it."""
    random = np.random.default_rng(seed)
    mean = random.standard_normal((NUM_RUNS, NUM_ARMS))
    best, first = mean.argmax(1), np.arange(NUM_RUNS) * NUM_ARMS
    count, value, index = np.zeros_like(mean), np.zeros_like(mean), np.empty_like(mean)
    flat_mean, flat_count, flat_value = mean.ravel(), count.ravel(), value.ravel()
    curve = np.empty((num_pulls, 2))
    for t in range(num_pulls):
        if t < NUM_ARMS:
            action = np.full(NUM_RUNS, t)
        else:
            np.divide(2 * ALPHA**2 * np.log(t), count, out=index)
            np.sqrt(index, out=index)
            np.add(index, value, out=index)
            action = index.argmax(1)
        entry = first + action
        reward = flat_mean[entry] + random.standard_normal(NUM_RUNS)
        flat_count[entry] = known = flat_count[entry] + 1
        before = flat_value[entry]
        flat_value[entry] = before + (reward - before) / known
        curve[t] = reward.mean(), (action == best).mean()
    return curve


def numba_fused(seed: int, num_pulls: int) -> Array:
    """One run after the other, arms and learner in one compiled loop."""
    return fused(np.random.default_rng(seed), NUM_RUNS, NUM_ARMS, num_pulls, ALPHA)


@njit(error_model="numpy")
def fused(random, num_runs, num_arms, num_pulls, alpha):
    curve = np.zeros((num_pulls, 2))
    mean, count, value, index = np.zeros((4, num_arms))
    scale = np.array([2 * alpha**2 * np.log(max(t, 1)) for t in range(num_pulls)])
    for _ in range(num_runs):
        count[:] = 0.0
        value[:] = 0.0
        for a in range(num_arms):
            mean[a] = random.standard_normal()
        best = mean.argmax()
        for t in range(num_pulls):
            action, highest = min(t, num_arms - 1), -np.inf
            if t >= num_arms:
                for a in range(num_arms):
                    index[a] = value[a] + np.sqrt(scale[t] / count[a])
                for a in range(num_arms):
                    if index[a] > highest:
                        action, highest = a, index[a]
            reward = mean[action] + random.standard_normal()
            count[action] += 1
            value[action] += (reward - value[action]) / count[action]
            curve[t, 0] += reward
            curve[t, 1] += action == best
    return curve / num_runs


def mabwiser(seed: int, num_pulls: int) -> Array:
    """One run, learning from each pull before the next, as its users do online."""
    from mabwiser.mab import MAB, LearningPolicy

    random = np.random.default_rng(seed)
    mean = random.standard_normal(NUM_ARMS)
    mab = MAB(list(range(NUM_ARMS)), LearningPolicy.UCB1(alpha=ALPHA), seed=seed)
    curve = np.empty((num_pulls, 2))
    for t in range(num_pulls):
        action = t if t < NUM_ARMS else mab.predict()
        reward = mean[action] + random.standard_normal()
        mab.partial_fit([action], [float(reward)])
        curve[t] = reward, action == mean.argmax()
    return curve


Side = Callable[[int, int], Array]
SIDES: dict[str, tuple[Side, int, int]] = {  # and how many runs of how many pulls it is given
    "rlplay": (rlplay, NUM_RUNS, NUM_PULLS),
    "numpy": (numpy_plain, NUM_RUNS, NUM_PULLS),
    "numpy, tuned": (numpy_tuned, NUM_RUNS, NUM_PULLS),
    "numba, fused": (numba_fused, NUM_RUNS, NUM_PULLS),
    "MABWiser": (mabwiser, 1, 2000),
}


def speed(options: argparse.Namespace) -> dict:
    runs: dict[str, list[dict]] = {side: [] for side in SIDES}
    for side, _, _ in SIDES.values():
        side(options.seed, NUM_ARMS + 2)  # compiled, or loaded from the cache
    for i in range(options.rounds):
        for name in list(SIDES)[:: -1 if i % 2 else 1]:
            side, num_runs, num_pulls = SIDES[name]
            started = time.perf_counter()
            curve = side(options.seed + i, num_pulls)
            rate = num_runs * num_pulls / (time.perf_counter() - started)
            end = curve[-100:].mean(0)
            runs[name].append({"rate": rate, "last_100": end[0], "optimal": end[1]})
    ratios = []
    print(f"{'median of ' + str(options.rounds):<16}{'pulls/s':>12}{'last 100':>10}{'optimal':>10}")
    for name, measured in runs.items():
        middle = {key: median(run[key] for run in measured) for key in measured[0]}
        print(f"{name:<16}{middle['rate']:>12,.0f}{middle['last_100']:>10.3f}"
              f"{middle['optimal']:>10.1%}")  # fmt: skip
    for name in list(SIDES)[1:]:
        pairs = zip(runs["rlplay"], runs[name], strict=True)
        values = [ours["rate"] / theirs["rate"] for ours, theirs in pairs]
        spread = {"median": median(values), "min": min(values), "max": max(values)}
        ratios.append({"side": "rlplay", "to": name, **spread, "goal": GOALS.get(name)})
        print(f"rlplay / {name}: {median(values):.3g} ({min(values):.3g} to {max(values):.3g}),"
              f" goal {GOALS.get(name, 'none')}")  # fmt: skip
    return {"about": "UCB1 on the 10-armed testbed, pulls a second", "ratios": ratios, "runs": runs}


def testbed(options: argparse.Namespace) -> dict:
    """Measure what the agents earn, each number with its standard error over the runs."""
    rows, seed = [], options.seed
    for name, (config, reference) in TESTBED.items():
        env = bandit.Config(num_envs=NUM_RUNS, problem_seed=seed, max_steps=NUM_PULLS).make()
        pulls = list(learning(env, config.make(env.spec, seed), seed, NUM_PULLS))
        reward = np.stack([now["reward"] for now in pulls])  # [T, N]
        optimal = 100 * np.stack([now["optimal_action"] for now in pulls[-100:]])
        means = reward.mean(0), reward[-100:].mean(0), optimal.mean(0)
        for i, tolerance in enumerate((0.02, 0.02, 2.0)):
            rows.append(compared(name, AVERAGE[i], means[i], reference[i], tolerance))
    for name, (arms, reference) in REGRET.items():
        world = bandit.Config(num_envs=300, reward="bernoulli", arms=arms, max_steps=10_000)
        for config, expected in zip((ucb1.Config(), ucb1_tuned.Config()), reference, strict=True):
            env = world.make()
            *_, last = learning(env, config.make(env.spec, seed), seed, world.max_steps)
            bound = float(last["cumulative_regret_bound"][0])
            what = f"regret (bound {bound:.0f})"
            regret = last["cumulative_regret"]
            row = compared(f"{config.name} {name}", what, regret, expected, expected / 10)
            rows.append(row | {"bound": bound})
    return {"about": "what the agents earn beside reference values", "rows": rows}


def compared(name: str, what: str, values: Array, expected: float, tolerance: float) -> dict:
    """Return, and print, the mean of `values` [N] beside the expected one."""
    mean, error = float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
    verdict = "" if abs(mean - expected) <= tolerance else f"  not within {tolerance:g}"
    print(f"{name:<30}{what:<26}{mean:>9.3f} +- {error:.3f}, reference {expected:g}{verdict}")
    return {"name": name, "what": what, "mean": mean, "standard_error": error,
            "reference": expected, "tolerance": tolerance, "runs": len(values)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", nargs="?", default="speed", choices=["speed", "testbed"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    machine = {"load_before": os.getloadavg()[0]}
    result = {"speed": speed, "testbed": testbed}[options.part](options)
    versions = {name: metadata.version(name) for name in ("numba", "mabwiser")}
    facts = system()
    facts["versions"] |= versions
    default = {"speed": "bandits.json", "testbed": "bandits_numbers.json"}[options.part]
    out = options.out or RESULTS / default
    write_json(out, {**result, "command": shlex.join(sys.argv), "machine": facts | machine})
    print(f"written to {out}")


if __name__ == "__main__":
    main()
