"""rlplay on Atari beside its peers on the same machine: ale-py's bare vector env, and the DQN and
PPO of Stable-Baselines3 (Raffin et al. 2021) as their users run them.

    python benchmarks/atari.py [PART] [--seconds N] [--rounds R] [--config PRESET] [--out FILE]

Every measurement is a process of its own. A round measures each side once, the next one in reverse
(A B, B A, ...), so that a machine that slows down slows all sides; ratios are taken within a round.
Rates are agent steps a second over all envs, counted after learning has warmed up. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median
from types import SimpleNamespace as Options
from typing import Any, NamedTuple

import numpy as np

from envs import atari
from rlplay import config
from rlplay.__main__ import quiet_threads
from rlplay.core import Agent, Decision, Step
from rlplay.play import collect, play
from rlplay.run import system, write_json

RESULTS = Path(__file__).parent / "results"
WARM_UP = 50  # updates before the clock starts
AS_SB3 = """
    --env.noop-max 30 --env.fire-start --agent.encoder.name nature --agent.hidden 512
    --agent.no-double --agent.no-dueling --agent.no-prioritized --agent.n-step 1
    --agent.learning-rate 1e-4 --agent.adam-eps 1e-8 --agent.batch-size 32
    --agent.steps-per-update 4 --agent.target-every 10000 --agent.learning-starts 1000
    --agent.replay-size 100000 --agent.epsilon-start 0.05 --agent.epsilon-end 0.05
    --agent.max-grad-norm 10 --agent.discount 0.99 """  # pong/dqn as `sb3_dqn` and SB3's defaults

AS_SB3_PPO = """
    --env.num-envs 8 --env.noop-max 30 --env.fire-start --env.frame-size 84
    --env.no-episodic-points --agent.encoder.name nature --agent.encoder.first-stride 4
    --agent.hidden 512 --agent.horizon 128 --agent.epochs 4 --agent.batch-size 256
    --agent.learning-rate 2.5e-4 """  # pong/ppo and pong/pqn as `sb3_ppo`


class Part(NamedTuple):
    about: str
    seconds: float  # of each measurement
    rounds: int
    sides: dict[str, dict]  # by name: one of the functions below, and its options
    pairs: list[tuple[str, str, float | None]]  # side, what it is compared with, ratio aimed at


def parts() -> dict[str, Part]:
    def trained(flags: str) -> dict:
        return {"measure": "rlplay_speed", "flags": flags.split()}

    def on_policy(preset: str, flags: str = "") -> dict:
        return {"measure": "rlplay_on_policy", "config": preset, "flags": flags.split()}

    envs = {f"{who}, num_envs {n}": {"measure": "env_rate", "num_envs": n, "bare": who != "rlplay"}
            for n in (8, 16) for who in ("bare", "rlplay")}  # fmt: skip
    sb3 = {f"SB3, num_envs {n}": {"measure": "sb3_speed", "num_envs": n} for n in (1, 4)}
    ours = {f"rlplay, num_envs {n}, {precision}":
            trained(f"{AS_SB3} --env.num-envs {n} --agent.precision {precision}")
            for n in (1, 4, 8) for precision in ("float32", "auto")}  # fmt: skip
    many, rarely = "--env.num-envs 64", "--agent.steps-per-update 64 --agent.batch-size 256"
    gpu = {
        "env alone": {"measure": "env_rate", "num_envs": 64, "bare": False},
        "batch 32 every 4 steps": trained(f"{AS_SB3} {many}"),
        "pong/dqn": trained(many),
        "pong/dqn, batch 256 every 64 steps": trained(f"{many} {rarely}"),
    }
    same = {f"{agent}, {precision}":
            on_policy(f"pong/{agent}", f"{AS_SB3_PPO} --agent.precision {precision}")
            for agent in ("ppo", "pqn") for precision in ("float32", "auto")}  # fmt: skip
    presets = {name: on_policy(name) for name in ("pong/ppo", "pong/pqn")}
    rollouts = {"SB3": {"measure": "sb3_ppo", "num_envs": 8}} | same | presets
    batch = "--agent.batch-size 2048"
    gpu |= {f"{name}, num_envs {n}": on_policy(name, f"--env.num-envs {n} {batch}")
            for name in presets for n in (64, 128)}  # fmt: skip
    score = {"SB3": {"measure": "sb3_score"}, "rlplay": {"measure": "rlplay_score"}}
    return {
        "env": Part("our env beside bare ale-py, random actions", 5, 5, envs,
                    [(f"rlplay, num_envs {n}", f"bare, num_envs {n}", 0.95) for n in (8, 16)]),
        "speed": Part("SB3's DQN and ours, same hyper-parameters", 20, 3, sb3 | ours,
                      [(side, base, 2 if "1" in base else None) for side in ours for base in sb3]),
        "tuned": Part("our preset beside SB3's DQN", 20, 3, sb3 | {"pong/dqn": trained("")},
                      [("pong/dqn", base, 4 if "1" in base else None) for base in sb3]),
        "ppo": Part("SB3's PPO and ours, same hyper-parameters, and our presets", 20, 3, rollouts,
                    [(side, "SB3", 2 if "ppo" in side else None) for side in list(rollouts)[1:]]),
        "score": Part("SB3's DQN and our preset after the same time", 600, 1, score, []),
        "cuda": Part("training beside the env alone, num_envs 64", 20, 3, gpu,
                     [(side, "env alone", 0.8) for side in list(gpu)[1:]]),
    }  # fmt: skip


def env_rate(options: Options) -> dict:
    n = options.num_envs
    if options.bare:
        from ale_py.vector_env import AtariVectorEnv

        plain: Any = {"noop_max": 0, "use_fire_reset": False, "reward_clipping": False}
        env = AtariVectorEnv("pong", n, repeat_action_probability=0.25, **plain)
    else:
        env = atari.Config(game="pong", num_envs=n, sticky_actions=0.25).make()
    env.reset(seed=options.seed)
    actions = np.random.default_rng(options.seed).integers(6, size=(1000, n))
    count, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < options.seconds:
        env.step(actions[count % 1000])
        count += 1
    return {"rate": count * n / spent}


def rlplay_speed(options: Options) -> dict:
    from rlplay import train

    training = train.Training(preset(options), print)
    agent: Any = training.agent
    watch = Stopwatch(options.seconds, env=(training.env, "step"), act=(agent, "act"),
                      add=(agent.replay, "add"), sample=(agent.replay, "sample"),
                      update=(agent, "update"))  # fmt: skip
    next(steps for steps in learning(training) if watch.over(agent.descent.num_updates, steps))
    return watch.report() | memory(agent.replay.ring)


def rlplay_on_policy(options: Options) -> dict:
    from rlplay import train

    training = train.Training(preset(options), print)
    agent: Any = training.agent
    watch = Stopwatch(options.seconds, env=(training.env, "step"), act=(agent, "act"),
                      update=(agent, "learn"))  # fmt: skip
    next(steps for steps in learning(training) if watch.over(agent.descent.num_updates, steps))
    return watch.report()


def preset(options: Options) -> Any:
    """Return our preset with flags laid over it."""
    flags = ["--agent.device", options.device, "--seed", str(options.seed), *options.flags]
    return config.load(options.config, flags)


def learning(training: Any) -> Iterator[int]:
    """Train as `rlplay train` does between two lines of its log; yield the agent steps so far."""
    moments = training.episodes.listen(play(training.env, training.agent, training.first_step))
    while True:
        trajectory = collect(moments, training.agent.horizon)
        training.averages.add(training.agent.learn(trajectory))
        training.steps += trajectory.decision.action.size
        yield training.steps


def sb3_speed(options: Options) -> dict:
    epsilon = {"exploration_initial_eps": 0.05, "exploration_final_eps": 0.05}
    model = sb3_dqn(options, learning_starts=1000, **epsilon)
    watch = Stopwatch(options.seconds, env=(model.env, "step"), act=(model, "_sample_action"),
                      add=(model, "_store_transition"), sample=(model.replay_buffer, "sample"),
                      update=(model, "train"))  # fmt: skip
    model.learn(10**9, callback=lambda *_: not watch.over(model._n_updates, model.num_timesteps))
    return watch.report() | memory(vars(model.replay_buffer).values())


def sb3_ppo(options: Options) -> dict:
    """SB3's PPO with the settings of RL Zoo for Atari; one rollout is the least that counts."""
    from stable_baselines3 import PPO

    n, horizon, batch_size = options.num_envs, 128, 256
    model = PPO("CnnPolicy", sb3_env(options), learning_rate=2.5e-4, n_steps=horizon,
                batch_size=batch_size, n_epochs=4, clip_range=0.1, ent_coef=0.01, seed=options.seed,
                device=options.device)  # fmt: skip
    watch = Stopwatch(options.seconds, env=(model.env, "step"), act=(model.policy, "forward"),
                      update=(model, "train"))  # fmt: skip

    def going_on(*_: Any) -> bool:
        rollouts, begun = divmod(model.num_timesteps - n, n * horizon)
        updates = model._n_updates * n * horizon // batch_size  # it counts epochs
        return bool(begun) or not watch.over(updates, rollouts * n * horizon)

    model.learn(10**9, callback=going_on)
    return watch.report()


def sb3_dqn(options: Options, **settings: Any) -> Any:
    """Return SB3's DQN as its users make it; one update per 4 agent steps."""
    from stable_baselines3 import DQN

    return DQN("CnnPolicy", sb3_env(options), learning_rate=1e-4, buffer_size=100_000,
               batch_size=32, train_freq=4 // options.num_envs, gradient_steps=1,
               optimize_memory_usage=False, seed=options.seed, device=options.device,
               **settings)  # fmt: skip


def sb3_env(options: Options) -> Any:
    import ale_py
    from stable_baselines3.common.env_util import make_atari_env
    from stable_baselines3.common.vec_env import VecFrameStack

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    sticky = {"repeat_action_probability": 0.25}
    game = preset(options).env.game.title().replace("_", "")
    env = make_atari_env(f"{game}NoFrameskip-v4", options.num_envs, options.seed, env_kwargs=sticky)
    return VecFrameStack(env, 4)


class Stopwatch:
    """Times `seconds` of learning after the warm-up, and what some methods take of them. On a GPU
    the time counts where the processor waits for it."""

    def __init__(self, seconds: float, **methods: tuple[Any, str]) -> None:
        self.seconds = seconds
        self.start: tuple[float, ...] = ()  # time, updates, steps
        self.inside = dict.fromkeys(methods, 0.0)  # seconds
        for name, (owner, method) in methods.items():
            setattr(owner, method, partial(self.call, name, getattr(owner, method)))

    def call(self, name: str, method: Callable, *args: Any, **settings: Any) -> Any:
        started = time.perf_counter()
        result = method(*args, **settings)
        self.inside[name] += time.perf_counter() - started
        return result

    def over(self, updates: int, steps: int) -> bool:
        """Tell whether the time is over, given all updates and agent steps so far."""
        self.now = (time.perf_counter(), updates, steps)
        if not self.start and updates >= WARM_UP:
            self.start = self.now
            self.inside = dict.fromkeys(self.inside, 0.0)
        return bool(self.start) and self.now[0] - self.start[0] >= self.seconds

    def report(self) -> dict:
        spent, updates, steps = (now - then for now, then in zip(self.now, self.start, strict=True))
        nothing = dict.fromkeys(("env", "act", "add", "sample", "update"), 0.0)
        share = nothing | {name: seconds / spent for name, seconds in self.inside.items()}
        return {
            "rate": steps / spent, "steps": steps,
            "update_ms": 1000 * self.inside["update"] / max(1, updates),  # with its sampling
            "env": share["env"], "act": share["act"], "replay": share["add"] + share["sample"],
            "update": share["update"] - share["sample"],
            "other": 1 - sum(share[name] for name in ("env", "act", "add", "update")),
        }  # fmt: skip


def memory(arrays: Any) -> dict:
    """Fill the replay memory, whose pages do not count before they are written to, and return the
    peak memory of this process."""
    import torch

    for array in arrays:
        if isinstance(array, np.ndarray | torch.Tensor):
            array[:] = 0
    peak = {"peak_gb": getrusage(RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    return peak | {"peak_gpu_gb": torch.cuda.max_memory_allocated() / 1e9}  # 0 without a GPU


def rlplay_score(options: Options) -> dict:
    experiment = preset(options)  # imports torch
    until = time.perf_counter() + options.seconds
    from rlplay import train

    training = train.Training(experiment, print)
    steps = next(steps for steps in learning(training) if time.perf_counter() >= until)
    return scored(training.agent, options, steps, until)


def sb3_score(options: Options) -> dict:
    """The Atari settings of RL Zoo (Raffin 2020). They are for ten million steps: of what the clock
    allows, 10% go to exploration, as there, and at most 10% to filling the memory."""
    import stable_baselines3  # noqa: F401, before the clock starts

    until = time.perf_counter() + options.seconds
    # The clock ends the training, at about a tenth of the steps that SB3 is told.
    model = sb3_dqn(options, learning_starts=min(100_000, options.expected // 10),
                    target_update_interval=1000, exploration_fraction=0.1 / 10,
                    exploration_final_eps=0.01)  # fmt: skip
    model.learn(10 * options.expected, callback=lambda *_: time.perf_counter() < until)
    return scored(SB3Player(model), options, model.num_timesteps, until)


class SB3Player(Agent):
    """SB3's agent as one of ours: it sees the same picture, the newest frame last."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def act(self, step: Step, explore: bool = True) -> Decision:
        return Decision(self.model.predict(step.observation, deterministic=not explore)[0], {})


def scored(agent: Agent, options: Options, steps: int, until: float) -> dict:
    """Evaluate by the protocol of our preset: greedy, unclipped, full games."""
    seconds = options.seconds + time.perf_counter() - until
    from rlplay import train

    result = train.score(preset(options), agent)
    return {**result.summary(), "steps": steps, "seconds": seconds, "scores": list(result.scores)}


SHARES = dict.fromkeys(("env", "act", "replay", "update", "other"), ".0%")
SCORE = {"mean": ".1f", "ci_low": ".1f", "ci_high": ".1f", "seconds": ".0f", "steps": ",.0f"}
COLUMNS = {"rate": ",.0f", "update_ms": ".2f", **SHARES, "peak_gb": ".2f", **SCORE}


def run_part(part: Part, options: argparse.Namespace, out: Path) -> None:
    seconds, rounds = options.seconds or part.seconds, options.rounds or part.rounds
    common = {"seconds": seconds, "device": options.device, "config": options.config}
    common |= {"num_envs": 1, "flags": []}
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    machine = {"memory_gb": gigabytes, "load_before": os.getloadavg()[0]}
    print(f"{part.about}; rounds: {rounds}, seconds: {seconds:g}, {machine}", flush=True)
    if part.sides.get("SB3", {}).get("measure") == "sb3_score":
        common["flags"] = ["--evaluation.num-episodes", str(options.episodes)]
        short = {"measure": "sb3_speed", "seconds": min(10, seconds), "seed": options.seed}
        common["expected"] = int(seconds * in_new_process(common | short)["rate"])
    runs: dict[str, list[dict]] = {side: [] for side in part.sides}
    for i in range(rounds):
        for side in list(part.sides)[:: -1 if i % 2 else 1]:
            settings = common | {"seed": options.seed + i} | part.sides[side]
            runs[side].append(in_new_process(settings) | {"settings": settings})
            print(row(side, runs[side][-1:]), flush=True)
        ratios = [ratio(*pair, runs) for pair in part.pairs]
        facts = {"about": part.about, "command": shlex.join(sys.argv), "ratios": ratios}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {**facts, "machine": system() | machine, "runs": runs})
    shown = [name for name in COLUMNS if name in runs[side][0]]
    print(f"\n{f'median of {rounds}':<38}" + "".join(f"{name:>10}" for name in shown))
    print("\n".join(row(side, measured) for side, measured in runs.items()))
    for r in ratios:
        spread = f"{r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})"
        print(f"{r['side']} / {r['to']}: {spread}, goal {r['goal'] or 'none'}")
    print(f"written to {out}", flush=True)


def in_new_process(settings: dict) -> dict:
    command = [sys.executable, __file__, "--measure", json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: Options) -> None:
    """Measure in this process. Where rlplay learns, it sets torch's threads before torch loads."""
    if options.measure.startswith("rlplay"):
        assert "torch" not in sys.modules
        quiet_threads()
    print(json.dumps(globals()[options.measure](options)))


def ratio(side: str, base: str, goal: float | None, runs: dict[str, list[dict]]) -> dict:
    values = [a["rate"] / b["rate"] for a, b in zip(runs[side], runs[base], strict=True)]
    spread = {"median": median(values), "min": min(values), "max": max(values)}
    return {"side": side, "to": base, **spread, "goal": goal}


def row(side: str, runs: list[dict]) -> str:
    """Return the medians of one side's measurements as a line of the table."""
    middle = {name: median(run[name] for run in runs) for name in COLUMNS if name in runs[0]}
    cells = (format(value, COLUMNS[name]) for name, value in middle.items())
    return f"{side:<38}" + "".join(f"{cell:>10}" for cell in cells)


def main() -> None:
    there = parts()
    parser = argparse.ArgumentParser(description="rlplay on Atari Pong beside its peers")
    parser.add_argument("part", nargs="?", default="all", choices=[*there, "all"])
    parser.add_argument("--seconds", type=float, help="of each measurement; each part has its own")
    parser.add_argument("--rounds", type=int, help="how often each side is measured")
    parser.add_argument("--episodes", type=int, default=30, help="of each evaluation in score")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next has +1")
    parser.add_argument("--config", default="pong/dqn", help="the preset of tuned and score")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/atari_PART.json")
    options = parser.parse_args()
    if options.out and options.part == "all":
        parser.error("--out is one file: name the part that it is for")
    every = [name for name in there if name != "cuda" or options.device == "cuda"]
    for name in every if options.part == "all" else [options.part]:
        run_part(there[name], options, options.out or RESULTS / f"atari_{name}.json")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Options(**json.loads(sys.argv[2])))
    else:
        main()
