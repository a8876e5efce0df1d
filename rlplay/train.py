"""Collect, learn, log, evaluate, record, save: the training of any agent in any world.

Time is counted in agent steps over all envs. The order of the work depends on that count alone, so
that a resumed run does what the uninterrupted one would have done.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import numpy as np

from rlplay import checkpoint, evaluate, record, run
from rlplay.config import Experiment
from rlplay.core import Agent, Env, Mistake, NonFinite, Spec, State
from rlplay.play import Moment, collect, play

RECENT = 100
"""Finished episodes over which the log averages."""


class Interrupted(BaseException):
    """A signal asked the training to end."""


class Interrupt:
    """Ctrl-C and SIGTERM. The first asks for an orderly end: in the middle of `breakable` work by
    raising Interrupted, else when the training next looks at `signal`. The second ends the process
    on the spot."""

    def __init__(self) -> None:
        self.signal = 0
        self.inside_breakable = False

    @contextmanager
    def breakable(self) -> Iterator[None]:
        self.inside_breakable = True
        try:
            if self.signal:
                raise Interrupted
            yield
        finally:
            self.inside_breakable = False

    def __enter__(self) -> Interrupt:
        kinds = (signal.SIGINT, signal.SIGTERM)
        self.before = [(kind, signal.signal(kind, self.handle)) for kind in kinds]
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self.before:
            signal.signal(kind, handler)

    def handle(self, kind: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + kind)
        self.signal = kind
        if self.inside_breakable:
            raise Interrupted


class Episodes:
    """Listens to a stream of play and keeps what the log says about episodes."""

    def __init__(self, spec: Spec) -> None:
        self.count = 0
        self.running = np.zeros((spec.num_envs, 3))  # reward, score and length so far
        self.finished: deque[list[float]] = deque(maxlen=RECENT)

    def listen(self, moments: Iterator[Moment]) -> Iterator[Moment]:
        for moment in moments:
            self.running[moment.step.done] = 0  # the action after a done began a new episode
            following = moment.following
            self.running[:, 0] += following.reward[:, 0]
            self.running[:, 1] += following.score[:, 0]
            self.running[:, 2] += ~moment.step.done
            self.finished.extend(self.running[following.done].tolist())
            self.count += int(following.done.sum())
            yield moment

    def metrics(self) -> dict[str, float]:
        """Return means over the recent episodes: reward as learned from, score in game points."""
        if not self.finished:
            return {}
        reward, score, length = np.mean(self.finished, axis=0).tolist()
        return {
            "rollout/ep_rew_mean": reward,
            "rollout/ep_score_mean": score,
            "rollout/ep_len_mean": length,
        }

    def state_dict(self) -> State:
        finished = np.array(self.finished).reshape(-1, 3)
        return {"count": self.count, "running": self.running, "finished": finished}

    def load_state_dict(self, state: State) -> None:
        self.count = state["count"]
        self.finished.extend(state["finished"].tolist())
        if state["running"].shape == self.running.shape:
            self.running = np.array(state["running"])


class Training:
    """One training from its start, or from a checkpoint, to its end."""

    def __init__(self, experiment: Experiment, announce: Callable[[str], None]) -> None:
        """Build env and agent. Raises Mistake where they do not fit each other or the machine."""
        self.experiment = experiment
        self.announce = announce
        self.env: Env = experiment.env.make()
        self.agent: Agent = experiment.agent.make(self.env.spec, experiment.seed)
        self.episodes = Episodes(self.env.spec)
        self.averages = Averages()
        self.steps = 0  # agent steps over all envs
        self.seconds = 0.0  # spent learning, over all sessions of the run
        self.best = -np.inf  # mean score of the best evaluation
        self.first_step = self.env.reset(experiment.seed)

    def restore(self, parts: dict[str, State]) -> None:
        """Continue where the checkpoint stands."""
        own = parts["train"]
        self.steps, self.seconds, self.best = own["steps"], own["seconds"], own["best"]
        self.agent.load_state_dict({k: v for k, v in parts.items() if k not in ("train", "env")})
        self.episodes.load_state_dict(own["episodes"])
        self.averages.load_state_dict(own["averages"])
        if own["replay_left_out"]:
            self.announce("the replay memory was not saved: it starts empty and fills up again")
        if self.env.spec.exact_resume:
            self.first_step = self.env.load_state_dict(parts["env"])
        else:
            self.announce("this world cannot be saved: its episodes start anew")
            self.agent.cut()
            self.episodes.running[:] = 0
            self.first_step = self.env.reset(self.experiment.seed + (self.steps << 32))

    def run(self, folder: run.Run) -> int:
        """Train to the end; return the exit code: 0, 128 + the signal that ended it early, or 1
        after a loss that is not finite. Raises Mistake where another process trains there."""
        with folder.locked():
            return self.run_in(folder)

    def run_in(self, folder: run.Run) -> int:
        self.folder = folder
        self.log = run.Log(folder.folder, self.steps)
        self.saved_at = self.steps or -1  # a new run has not even saved its start
        if not self.steps:
            self.log.write_settings(self.experiment)
        elif (folder.checkpoints / "best").is_dir():  # the last evaluation came after the last save
            with suppress(checkpoint.Damaged):
                best = checkpoint.load(folder.checkpoints / "best")["train"]["best"]
                self.best = max(self.best, best)
        with Interrupt() as self.interrupt:
            try:
                self.learn()
                self.save()
                if not self.interrupt.signal:
                    self.evaluate()
                    self.record()
            except Interrupted:
                self.save()
            except NonFinite as error:
                path = folder.folder / "nonfinite_batch.npz"
                np.savez_compressed(path, allow_pickle=False, **error.batch)
                self.announce(f"stopped: {error}; its batch is in {path}")
                return 1
            finally:
                self.log.close()
                self.env.close()
        return 128 + self.interrupt.signal if self.interrupt.signal else 0

    def learn(self) -> None:
        """Play and learn until `num_steps`, or until a signal."""
        experiment, agent = self.experiment, self.agent
        moments = self.episodes.listen(play(self.env, agent, self.first_step))
        self.logged = (self.steps, self.seconds)
        self.announce(HEADER)
        while self.steps < experiment.num_steps and not self.interrupt.signal:
            started, before = time.perf_counter(), self.steps
            trajectory = collect(moments, agent.horizon)
            self.averages.add(agent.learn(trajectory))
            self.steps += trajectory.decision.action.shape[0] * self.env.spec.num_envs
            self.seconds += time.perf_counter() - started
            if self.passed(before, experiment.log_every):
                self.write_log()
            if self.steps < experiment.num_steps:  # what is due at the end is done there
                if self.passed(before, experiment.evaluate_every):
                    self.evaluate()
                if self.passed(before, experiment.recording.every):
                    self.record()
                if self.passed(before, experiment.checkpoint.every):
                    self.save()
        if self.logged[0] < self.steps and self.steps >= experiment.num_steps:
            self.write_log()

    def passed(self, before: int, every: int) -> bool:
        """Tell whether the last steps passed a multiple of `every`; 0 is never."""
        return bool(every) and before // every != self.steps // every

    def write_log(self) -> None:
        """Write one line to the terminal, metrics.jsonl and TensorBoard: the same numbers."""
        steps, seconds = self.logged
        self.logged = (self.steps, self.seconds)
        rate = (self.steps - steps) / max(self.seconds - seconds, 1e-9)
        metrics = {
            **self.episodes.metrics(),
            **self.averages.take(),
            "time/fps": rate,  # agent steps a second
            "time/time_elapsed": self.seconds,
            "time/total_timesteps": self.steps,
            "time/emulator_frames": self.steps * self.env.spec.frames_per_step,
            "time/episodes": self.episodes.count,
        }
        self.log.write(metrics, self.steps)
        self.announce(row(metrics, self.experiment.num_steps))

    def evaluate(self) -> None:
        """Score the agent by the protocol; keep it as `best` where it never scored higher."""
        with self.interrupt.breakable():
            result = score(self.experiment, self.agent)
        summary = result.summary()
        names = {"mean": "mean_reward", "mean_length": "mean_ep_length"}  # as SB3 calls them
        metrics = {f"eval/{names.get(name, name)}": value for name, value in summary.items()}
        self.log.write(metrics, self.steps)
        self.announce(sentence(result))
        if summary["mean"] > self.best:
            self.best = summary["mean"]
            checkpoint.save(self.folder.checkpoints, "best", self.parts(replay=False))

    def record(self) -> None:
        """Record an episode, as mp4 and in TensorBoard. Announces where there is no picture."""
        path = self.folder.recordings / f"{self.steps:09d}"
        path.parent.mkdir(exist_ok=True)
        try:
            with self.interrupt.breakable(), run.single_env(self.experiment, render=True) as env:
                recording = record.record(env, self.agent, path, self.experiment.recording)
        except Mistake as mistake:
            self.announce(f"no recording: {mistake}")
            return
        record.tensorboard_clip(self.log.writer, "recording", recording.clip_gif, self.steps)
        self.announce(f"recorded {recording.path} (score {recording.score:g})")

    def parts(self, replay: bool = True) -> dict[str, State]:
        """Return all that a resumed run needs, as the parts of a checkpoint; the memory only where
        it is wanted and not larger than the setting allows."""
        parts = dict(self.agent.state_dict())
        limit = self.experiment.checkpoint.replay_gigabytes * 1e9
        left_out = "replay" in parts and (not replay or num_bytes(parts["replay"]) > limit)
        if left_out:
            parts.pop("replay")
        own = {
            "steps": self.steps,
            "seconds": self.seconds,
            "best": self.best,
            "episodes": self.episodes.state_dict(),
            "averages": self.averages.state_dict(),
            "replay_left_out": left_out,
        }
        return {**parts, "env": self.env.state_dict(), "train": own}

    def save(self) -> None:
        """Save a checkpoint of this step, once, and drop the oldest ones."""
        if self.saved_at == self.steps:
            return
        folder, keep = self.folder.checkpoints, self.experiment.checkpoint.keep
        checkpoint.save(folder, f"{self.steps:09d}", self.parts())
        checkpoint.prune(folder, keep, f"{self.steps:09d}")
        self.saved_at = self.steps


class Averages:
    """Means of the metrics since the log last took them; of whole numbers, the latest."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}  # name -> [sum, count]

    def add(self, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            if isinstance(value, int):
                self.sums[name] = [value, 0]
            else:
                total, count = self.sums.get(name, (0.0, 0))
                self.sums[name] = [total + value, count + 1]

    def take(self) -> dict[str, float]:
        means = {name: total / (count or 1) for name, (total, count) in self.sums.items()}
        self.sums = {}
        return means

    def state_dict(self) -> State:
        return {"sums": self.sums}

    def load_state_dict(self, state: State) -> None:
        self.sums = {name: list(pair) for name, pair in state["sums"].items()}


def score(experiment: Experiment, agent: Agent) -> evaluate.Result:
    """Evaluate an agent in the world of the experiment, by its protocol."""
    protocol = experiment.evaluation
    num_envs = min(protocol.num_envs, protocol.num_episodes)
    env = dataclasses.replace(experiment.env.for_evaluation(), num_envs=num_envs).make()
    try:
        return evaluate.evaluate(env, agent, protocol)
    finally:
        env.close()


def sentence(result: evaluate.Result) -> str:
    """Return an evaluation in one line."""
    numbers = result.summary()
    text = (
        f"evaluated {len(result.scores)} episodes: mean {numbers['mean']:.1f},"
        f" 95% interval {numbers['ci_low']:.1f} to {numbers['ci_high']:.1f},"
        f" median {numbers['median']:.1f}"
    )
    if "human_normalized" in numbers:
        text += f", {numbers['human_normalized']:.0%} of human"
    if result.stalled.any():
        text += f"; {result.stalled.sum()} stalled and were cut"
    return text


def num_bytes(state: State) -> int:
    """Return how much the arrays of a flat saved state take."""
    return sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))


COLUMNS = (
    ("agent steps", "time/total_timesteps", "{:,.0f}"),
    ("episodes", "time/episodes", "{:,.0f}"),
    ("score", "rollout/ep_score_mean", "{:.1f}"),
    ("length", "rollout/ep_len_mean", "{:,.0f}"),
    ("explore", "rollout/exploration_rate", "{:.3f}"),
    ("loss", "train/loss", "{:.5f}"),
    ("value", "train/q_value", "{:.3f}"),
    ("steps/s", "time/fps", "{:,.0f}"),
)
HEADER = "".join(f"{title:>12}" for title, _, _ in COLUMNS) + f"{'left':>12}"


def row(metrics: dict[str, float], num_steps: int) -> str:
    """Return a line of the table on the terminal, with the time left at this rate."""
    cells = [form.format(metrics[name]) if name in metrics else "-" for _, name, form in COLUMNS]
    left = int((num_steps - metrics["time/total_timesteps"]) / metrics["time/fps"])
    cells.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}")
    return "".join(f"{cell:>12}" for cell in cells)
