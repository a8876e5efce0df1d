"""rlplay's planning beside pymdptoolbox 4.0b3 on random sparse decision processes: 4 actions, 4
successors each, discount 0.99, values certified to 1e-6.

    python benchmarks/planning.py [--rounds R] [--seed N] [--out FILE]

Both are given the same arrays of next states, probabilities and rewards; the clock runs from there
to the values and the policy. Every measurement is a process of its own; a round measures both, the
next one in reverse. pymdptoolbox stops where the span of a sweep's change certifies the same error.
A process is "cold" where it has to compile everything first, with an empty cache. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from resource import RLIMIT_AS, setrlimit
from statistics import median
from typing import Any

import numpy as np

OUT = Path(__file__).parent / "results" / "planning.json"
ACTIONS, SUCCESSORS, DISCOUNT, ERROR = 4, 4, 0.99, 1e-6
REPEATS = 9  # of the sweeps alone, once everything is in memory
MEMORY_LIMIT = 12e9  # bytes, for the peer where it is known to want more
SMALL, MIDDLE, LARGE = 6_000, 100_000, 1_000_000


def sides() -> dict[str, dict[str, Any]]:
    """Return what is measured once, by name; the comparison of SMALL comes on top."""
    ours = {"measure": "rlplay", "num_states": LARGE}
    return {
        f"pymdptoolbox, {MIDDLE:,} states": {
            "measure": "pymdptoolbox", "num_states": MIDDLE, "limit": MEMORY_LIMIT
        },
        f"rlplay, {MIDDLE:,} states": ours | {"num_states": MIDDLE},
        f"rlplay, {SMALL:,} states, cold": ours | {"num_states": SMALL, "cold": True},
        f"rlplay, {LARGE:,} states, cold": ours | {"cold": True},
        f"rlplay, {LARGE:,} states": ours,
        f"rlplay, {LARGE:,} states, one thread": ours | {"threads": 1},
        f"rlplay, {LARGE:,} states, Gauss-Seidel": ours | {"order": "gauss_seidel"},
        f"rlplay, {LARGE:,} states, modified policy iteration": ours | {"order": "modified"},
    }  # fmt: skip


def arrays(num_states: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return next states and probabilities [S, A, K], and rewards [S, A]."""
    random = np.random.default_rng(seed)
    probability = random.random((num_states, ACTIONS, SUCCESSORS))
    probability /= probability.sum(2, keepdims=True)
    following = random.integers(num_states, size=probability.shape, dtype=np.int32)
    return following, probability, random.random((num_states, ACTIONS))


def rlplay(options: Any) -> dict[str, Any]:
    began = time.perf_counter()
    from rlplay.model import Model
    from rlplay.planning import PolicyIteration, Solver, ValueIteration
    from rlplay.sweeps import Tables

    loaded = time.perf_counter() - began
    given = arrays(options.num_states, options.seed)
    before = peak()
    began = time.perf_counter()

    def solver() -> Solver:
        if options.order == "modified":
            return PolicyIteration(tables, DISCOUNT, evaluation_sweeps=10)
        return ValueIteration(tables, DISCOUNT, options.order)

    model = Model.from_arrays(*given)
    tables = Tables.of(model)
    ready = time.perf_counter()
    plan = solver().solve(ERROR)
    total, peak_gb = time.perf_counter() - began, peak()
    seconds = []
    for _ in range(REPEATS if options.num_states < LARGE else 1):
        again, start = solver(), time.perf_counter()
        again.solve(ERROR)
        seconds.append(time.perf_counter() - start)
    result = {
        "seconds": total, "set_up_s": ready - began, "import_s": loaded, "sweeps": plan.sweeps,
        "peak_gb": peak_gb, "arrays_gb": before, "error_bound": float(plan.error_bound),
    }  # fmt: skip
    if options.order != "modified":  # where a sweep is one look at every transition
        result["sweep_ms"] = 1000 * median(seconds) / plan.sweeps
        result["rate"] = given[0].size * plan.sweeps / median(seconds) / 1e9
    return result | {"error": true_error(given, plan.policy, plan.values, 0)}


def pymdptoolbox(options: Any) -> dict[str, Any]:
    import mdptoolbox.mdp
    from scipy.sparse import csr_matrix

    following, probability, reward = given = arrays(options.num_states, options.seed)
    size, before = options.num_states, peak()
    if options.limit:
        setrlimit(RLIMIT_AS, (int(options.limit), int(options.limit)))
    began = time.perf_counter()
    offsets = np.arange(size + 1) * SUCCESSORS
    moves = [
        csr_matrix((probability[:, a].ravel(), following[:, a].ravel(), offsets), (size, size))
        for a in range(ACTIONS)
    ]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            solver = mdptoolbox.mdp.ValueIteration(moves, reward, DISCOUNT, epsilon=2 * ERROR)
        ready = time.perf_counter()
        solver.run()
    except MemoryError as error:
        seconds = time.perf_counter() - began
        return {"failed": f"MemoryError: {error}", "seconds": seconds, "limit": options.limit}
    total, peak_gb, seconds = time.perf_counter() - began, peak(), [solver.time]
    values, policy, sweeps = np.array(solver.V), np.array(solver.policy), solver.iter
    for _ in range(REPEATS - 1):
        solver.V, solver.iter = np.zeros(size), 0
        solver.run()
        seconds.append(solver.time)
    return {
        "seconds": total, "set_up_s": ready - began, "sweeps": sweeps, "peak_gb": peak_gb,
        "arrays_gb": before, "sweep_ms": 1000 * median(seconds) / sweeps,
        "rate": following.size * sweeps / median(seconds) / 1e9,
        "error": true_error(given, policy, values, None),
    }  # fmt: skip


def true_error(given: Any, policy: Any, values: Any, level: float | None) -> float | None:
    """Return how far values are from the exact ones of their policy; with no level, up to a
    constant for all states, which pymdptoolbox leaves open. None where that would take long."""
    from rlplay.model import Model
    from rlplay.planning import policy_values

    if len(values) > SMALL:
        return None
    exact = policy_values(Model.from_arrays(*given), np.eye(ACTIONS)[policy], DISCOUNT)
    gap = values - exact
    return float(np.abs(gap - ((gap.max() + gap.min()) / 2 if level is None else level)).max())


def peak() -> float:
    """Return the peak resident memory of this process, GB. (ru_maxrss would count the process that
    started it as well.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


COLUMNS = {"seconds": ".3f", "set_up_s": ".3f", "import_s": ".2f", "sweeps": "d", "rate": ".2f",
           "sweep_ms": ".3f", "peak_gb": ".2f", "error_bound": ".1e", "error": ".1e"}  # fmt: skip


def in_new_process(settings: dict[str, Any]) -> dict[str, Any]:
    settings = {"seed": 0, "order": "synchronous", "limit": None} | settings
    with tempfile.TemporaryDirectory() as cache:
        more = {"NUMBA_CACHE_DIR": cache} if settings.get("cold") else {}
        if "threads" in settings:
            more["NUMBA_NUM_THREADS"] = str(settings["threads"])
        command = [sys.executable, __file__, "--measure", json.dumps(settings)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | more
        )
    return json.loads(done.stdout.splitlines()[-1]) | {"settings": settings}


def row(side: str, result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"{side:<56} {result['failed']}, after {result['seconds']:.1f} s"
    known = {name for name in COLUMNS if result.get(name) is not None}
    cells = (format(result[n], COLUMNS[n]) if n in known else "" for n in COLUMNS)
    return f"{side:<56}" + "".join(f"{cell:>12}" for cell in cells)


def main() -> None:
    from rlplay.run import system, write_json  # not at the top: the sides need no such memory

    parser = argparse.ArgumentParser(description="rlplay's planning beside pymdptoolbox")
    parser.add_argument("--rounds", type=int, default=3, help="how often both sides are measured")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next has +1")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    facts = {
        "about": __doc__.split("\n\n")[0].replace("\n", " "),
        "command": shlex.join(["python", *sys.argv]),
        "machine": system() | {"load_before": os.getloadavg()[0]},
        "peer": {"pymdptoolbox": metadata.version("pymdptoolbox")},
    }
    print(f"{'':<56}" + "".join(f"{name:>12}" for name in COLUMNS), flush=True)
    in_new_process({"measure": "rlplay", "num_states": LARGE, "order": "modified"})  # compiles
    rounds: dict[str, list[dict[str, Any]]] = {"rlplay": [], "pymdptoolbox": []}
    for i in range(options.rounds):
        for name in list(rounds)[:: -1 if i % 2 else 1]:
            settings = {"measure": name, "num_states": SMALL, "seed": options.seed + i}
            rounds[name].append(in_new_process(settings))
            print(row(f"{name}, {SMALL:,} states", rounds[name][-1]), flush=True)
    pairs = list(zip(rounds["pymdptoolbox"], rounds["rlplay"], strict=True))
    ratios = {
        "arrays to answer, times faster": ([b["seconds"] / a["seconds"] for b, a in pairs], 10),
        "non-zeros a second, our rate over theirs": ([a["rate"] / b["rate"] for b, a in pairs], 1),
    }
    once = {}
    for side, settings in sides().items():
        once[side] = in_new_process(settings | {"seed": options.seed})
        print(row(side, once[side]), flush=True)
    for name, (values, goal) in ratios.items():
        spread = f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        print(f"{name}, {SMALL:,} states: {spread}, goal {goal}")
    spreads = {
        name: {"median": median(v), "min": min(v), "max": max(v), "goal": goal}
        for name, (v, goal) in ratios.items()
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, {**facts, "ratios": spreads, "rounds": rounds, "once": once})
    print(f"written to {options.out}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        asked = argparse.Namespace(**json.loads(sys.argv[2]))
        print(json.dumps(globals()[asked.measure](asked)))
    else:
        main()
