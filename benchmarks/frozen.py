"""How much faster an agent learns whose encoder is frozen: agent steps a second with an encoder
that learns, with one that is frozen in its place, and with one that every moment passes once.

    python -m benchmarks.frozen [--presets pong/ppo pong/dqn] [--seconds 20] [--rounds 3]

The sides take turns, and the order changes from round to round; factors are of the same round, to
the side that learns, and their median is told. What `learning` counts is the time in `learn` alone,
without the emulators and the choice of actions. Steps of processor time are told beside those of
the wall clock, for a machine that has other things to do as well. A memory begins with 2,000
moments.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from rlplay import config, frozen
from rlplay.play import collect, play
from rlplay.run import system, write_json

OUT = Path(__file__).resolve().parent / "results" / "frozen.json"
SIDES = ("learns", "frozen inside", "seen once")
Rates = dict[str, float]


class Side:
    """One agent and its games."""

    def __init__(self, preset: str, side: str) -> None:
        learn = "all" if side == "learns" else "none"
        flags = [f"--agent.encoder.learn={learn}"]
        if hasattr(config.load(preset).agent, "learning_starts"):
            flags.append("--agent.learning-starts=2000")
        experiment = config.load(preset, flags)
        self.env = experiment.env.make()
        make: Any = experiment.agent.make
        if side == "seen once":
            self.agent = frozen.make(experiment.agent, self.env.spec, 0)
            assert isinstance(self.agent, frozen.Frozen), "frames are smaller than features"
        else:
            self.agent = make(self.env.spec, 0)
        self.moments = play(self.env, self.agent, self.env.reset(0))
        steps = 0
        while steps < 2400:
            steps += self.turn()[0]

    def turn(self) -> tuple[int, float]:
        """Play and learn once; return the agent steps and the seconds of learning."""
        trajectory = collect(self.moments, self.agent.horizon)
        started = time.perf_counter()
        self.agent.learn(trajectory)
        return trajectory.decision.action.size, time.perf_counter() - started

    def measure(self, seconds: float) -> Rates:
        """Return agent steps a second."""
        steps, learning = 0, 0.0
        started, processor = time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            taken, spent = self.turn()
            steps, learning = steps + taken, learning + spent
        return {
            "wall": steps / (time.perf_counter() - started),
            "processor": steps / (time.process_time() - processor),
            "learning": steps / learning,
        }


def compare(preset: str, seconds: float, rounds: int) -> dict[str, Any]:
    """Return what each side came to, and how many times as fast as the first it is."""
    sides = {name: Side(preset, name) for name in SIDES}
    found: dict[str, list[Rates]] = {name: [] for name in SIDES}
    for number in range(rounds):
        for name in SIDES if number % 2 == 0 else reversed(SIDES):
            found[name].append(rates := sides[name].measure(seconds))
            said = ", ".join(f"{kind} {rate:,.0f}" for kind, rate in rates.items())
            print(f"{preset}, round {number + 1}, {name}: {said} steps/s", flush=True)
    told: dict[str, Any] = {}
    for name, rates in found.items():
        told[name] = {
            kind: {
                "rate": statistics.median(rate[kind] for rate in rates),
                "factors": [a[kind] / b[kind] for a, b in zip(rates, found["learns"], strict=True)],
            }
            for kind in ("wall", "processor", "learning")
        }
        said = ", ".join(
            f"{kind} {known['rate']:,.0f} steps/s ({statistics.median(known['factors']):.2f})"
            for kind, known in told[name].items()
        )
        print(f"{preset}, {name}: {said}", flush=True)
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--presets", nargs="+", default=["pong/ppo", "pong/dqn"])
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT, help="where the numbers are written")
    given = parser.parse_args()
    machine = system() | {"load_before": os.getloadavg()[0]}
    rows = {preset: compare(preset, given.seconds, given.rounds) for preset in given.presets}
    about = " ".join((__doc__ or "").split("\n\n")[0].split())
    write_json(given.out, {"about": about, "rows": rows, "machine": machine})
    return 0


if __name__ == "__main__":
    sys.exit(main())
