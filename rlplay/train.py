"""Collect, learn, log, evaluate, record, save: the training of any agent in any world.

Time is counted in agent steps over all envs. The order of the work depends on that count alone, so
that a resumed run does what the uninterrupted one would have done.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np

from rlplay import checkpoint, config, evaluate, frozen, maps, match, record, run, transfer
from rlplay.config import Experiment
from rlplay.core import Agent, AgentConfig, Env, Mistake, NonFinite, Spec, State
from rlplay.metrics import Averages, Episodes
from rlplay.play import Ahead, Moment, collect, packed, play, unpacked
from rlplay.session import Interrupt, Interrupted, Table, keep_batch

MAX_DRAWN = 3000
"""States of the largest world of which a map is drawn."""
COLUMNS = (
    ("agent steps", "time/total_timesteps", "{:,.0f}"),
    ("episodes", "time/episodes", "{:,.0f}"),
    ("score", "rollout/ep_score_mean", "{:.1f}"),
    ("length", "rollout/ep_len_mean", "{:,.0f}"),
    ("reward", "rollout/reward", "{:.3f}"),
    ("optimal", "rollout/optimal_action", "{:.1%}"),
    ("regret", "rollout/cumulative_regret", "{:.1f}"),
    ("RMS error", "train/rms_error", "{:.4f}"),
    ("residual", "train/residual", "{:.1e}"),
    ("error below", "train/error_bound", "{:.1e}"),
    ("explore", "rollout/exploration_rate", "{:.3f}"),
    ("loss", "train/loss", "{:.5f}"),
    ("value", "train/q_value", "{:.3f}"),
    ("steps/s", "time/fps", "{:,.0f}"),
)
ALWAYS = ("agent steps", "episodes", "score", "length", "steps/s")
"""The columns of the table on the terminal, and those that are always there."""


class Training:
    """One training from its start, or from a checkpoint, to its end."""

    def __init__(
        self, experiment: Experiment, announce: Callable[[str], None], begins: bool = True
    ) -> None:
        """Build env and agent; where it `begins`, and is not to be restored, the agent's encoder
        starts from another run's if it is to. Raises Mistake where they do not fit each other or
        the machine."""
        self.experiment = experiment
        self.announce = announce
        self.env: Env = experiment.env.make()
        if self.env.spec.num_players > 1 and experiment.evaluation.num_episodes:
            opponent(experiment, self.env.spec)  # what is wrong with it is said now, not at the end
        agent = lasting(experiment)
        self.agent: Agent = frozen.make(agent, self.env.spec, experiment.seed)
        if begins:
            transfer.lend_agent(self.agent, agent, self.env.spec, announce)
        if experiment.collect_ahead:
            self.agent.actor()  # who cannot says so now
        self.ahead: Ahead | None = None
        self.played: list[Moment] = []  # ahead, before the checkpoint that this goes on from
        self.averages = Averages()
        self.episodes = Episodes(self.env.spec, self.averages)
        self.steps = 0  # agent steps over all envs
        self.seconds = 0.0  # spent learning, over all sessions of the run
        self.best = -np.inf  # mean score of the best evaluation
        self.first_step = self.env.reset(experiment.seed)

    @property
    def about(self) -> str:
        experiment = self.experiment
        return (
            f"{experiment.agent.name} learns {experiment.env.world}, agent steps {self.steps:,} to"
            f" {experiment.num_steps:,}"
        )

    @property
    def where(self) -> str:
        return f"{self.steps:,} agent steps"

    @property
    def more(self) -> str:
        """The setting that makes a finished training go on; empty where it is not finished."""
        return f"--num-steps {2 * self.steps}" * (self.steps >= self.experiment.num_steps)

    @property
    def spec(self) -> Spec:
        return self.env.spec

    def verbs(self, path: str) -> list[str]:
        """Return what may be typed next about the run in `path`."""
        spec, experiment = self.env.spec, self.experiment
        is_game = spec.num_players == 2 and spec.model is not None
        return [
            *[f"evaluate {path}"] * bool(experiment.evaluation.num_episodes),
            *[f"record {path}"] * bool(experiment.recording.max_steps),
            *[f"ladder {path}", f"play --against {path}"] * is_game,
        ]

    def restore(self, parts: dict[str, State]) -> None:
        """Continue where the checkpoint stands."""
        own = parts["train"]
        self.steps, self.seconds, self.best = own["steps"], own["seconds"], own["best"]
        others = ("train", "env", "ahead")
        self.agent.load_state_dict({k: v for k, v in parts.items() if k not in others})
        self.episodes.load_state_dict(own["episodes"])
        self.averages.load_state_dict(own["averages"])
        if own["replay_left_out"]:
            self.announce("the replay memory was not saved: it starts empty and fills up again")
        if self.env.spec.exact_resume:
            self.first_step = self.env.load_state_dict(parts["env"])
            self.played = unpacked(parts.get("ahead", {}))
        else:
            self.announce("this world cannot be saved: its episodes start anew")
            self.agent.cut()
            self.episodes.cut()
            self.first_step = self.env.reset(self.experiment.seed + (self.steps << 32))

    def run(self, folder: run.Run) -> int:
        """Train to the end; return the exit code: 0, 128 + the signal that ended it early, or 1
        after a loss that is not finite. Raises Mistake where another process trains there."""
        with folder.locked(), Interrupt() as self.interrupt:
            return self.run_in(folder)

    def run_in(self, folder: run.Run) -> int:
        self.folder = folder
        self.log = run.Log(folder.folder, self.steps)
        self.saved_at = self.steps or -1  # a new run has not even saved its start
        if not self.steps:
            self.log.write_settings(self.experiment)
            self.draw()
        elif (folder.checkpoints / "best").is_dir():  # the last evaluation came after the last save
            with suppress(checkpoint.Damaged):
                best = checkpoint.load(folder.checkpoints / "best")["train"]["best"]
                self.best = max(self.best, best)
        try:
            self.learn()
            self.save()
            if not self.interrupt.signal:
                self.evaluate()
                self.record()
                self.film()
        except Interrupted:
            self.save()
        except NonFinite as error:
            self.announce(keep_batch(error, folder.folder))
            return 1
        finally:
            if self.ahead is not None:
                self.ahead.close()
            self.log.close()
            self.env.close()
        return 128 + self.interrupt.signal if self.interrupt.signal else 0

    def learn(self) -> None:
        """Play and learn until `num_steps`, or until a signal."""
        experiment, agent = self.experiment, self.agent
        moments = self.episodes.listen(self.stream())
        self.logged = (self.steps, self.seconds)
        self.table = Table(self.announce, experiment.num_steps, COLUMNS, ALWAYS)
        while self.steps < experiment.num_steps and not self.interrupt.signal:
            started, before = time.perf_counter(), self.steps
            try:
                trajectory = collect(moments, agent.horizon)
            except Exception:
                time.sleep(0.2)  # a world that is a process of its own may get the signal first
                if self.interrupt.signal:
                    break
                raise
            metrics = agent.learn(trajectory)
            self.averages.add(metrics)
            for name, values in metrics.items():
                if isinstance(values, np.ndarray):
                    self.episodes.note(name.rpartition("/")[2], values)
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
        self.table.close()

    def stream(self) -> Iterator[Moment]:
        """Return the play that is learned from, which goes on where the training stands."""
        env, agent = self.env, self.agent
        if not self.experiment.collect_ahead:
            return chain(self.played, play(env, agent, self.first_step))
        self.ahead = Ahead(env, agent, self.first_step, agent.horizon, self.played)
        return self.ahead

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
        self.table.add(metrics)

    def evaluate(self) -> None:
        """Score the agent by the protocol; keep it as `best` where it never scored higher."""
        if not self.experiment.evaluation.num_episodes:
            return
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
        if not self.experiment.recording.max_steps:
            return
        path = self.folder.recordings / f"{self.steps:09d}"
        path.parent.mkdir(exist_ok=True)
        try:
            with self.interrupt.breakable(), run.single_env(self.experiment, render=True) as env:
                recording = record.record(env, self.agent, path, self.experiment.recording)
        except Mistake as mistake:
            self.announce(f"no recording: {mistake}")
            return
        record.tensorboard_image(self.log.writer, "recording", recording.clip_gif, self.steps)
        self.announce(f"recorded {recording.path} ({recording.result})")

    def film(self) -> None:
        """Make a film of the maps drawn so far: the learning itself, to watch."""
        pictures = sorted(self.folder.pictures.glob("*.png"))
        if pictures:
            path = self.folder.recordings / "learning.mp4"
            path.parent.mkdir(exist_ok=True)
            maps.film(pictures, path)
            self.announce(f"filmed the learning in {path}")

    def parts(self, replay: bool = True) -> dict[str, State]:
        """Return all that a resumed run needs, as the parts of a checkpoint; the memory only where
        it is wanted and not larger than the setting allows. What was played ahead is waited for and
        is one of them, but where the world cannot be saved: there it is lost with the games."""
        ahead = [] if self.ahead is None else self.ahead.collected()
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
        if ahead and self.env.spec.exact_resume:
            parts["ahead"] = packed(ahead)
        return {**parts, "env": self.env.state_dict(), "train": own}

    def save(self) -> None:
        """Save a checkpoint of this step, once, and drop the oldest ones."""
        if self.saved_at == self.steps:
            return
        folder, keep = self.folder.checkpoints, self.experiment.checkpoint.keep
        checkpoint.save(folder, f"{self.steps:09d}", self.parts())
        checkpoint.prune(folder, keep, f"{self.steps:09d}")
        self.folder.write_episodes(self.episodes.by_number)
        self.draw()
        self.saved_at = self.steps

    def draw(self) -> None:
        """Draw what the agent thinks of every state, where the world has a map, as a picture of
        this step in the run folder and in TensorBoard."""
        spec = self.env.spec
        if spec.layout is None or len(spec.layout.cells) > MAX_DRAWN:
            return
        if not self.experiment.recording.max_steps:
            return
        picture = maps.picture(*maps.known(self.agent, spec), spec, f"{self.steps:,} agent steps")
        self.folder.pictures.mkdir(exist_ok=True)
        png = maps.save(picture, self.folder.pictures / f"{self.steps:09d}.png")
        record.tensorboard_image(self.log.writer, "map", png, self.steps)


def lasting(experiment: Experiment) -> AgentConfig:
    """Return the settings of the agent, its schedules as long as the training where they are to be.
    Raises Mistake where it would stop learning before the end."""
    agent: Any = experiment.agent
    duration, num_steps = getattr(agent, "schedule_steps", None), experiment.num_steps
    if duration == 0:
        return dataclasses.replace(agent, schedule_steps=num_steps)
    if duration is not None and duration < num_steps and not agent.learning_rate_end:
        raise Mistake(
            f"the learning rate would be 0 from agent.schedule_steps {duration:,} on, and the"
            f" training is of num_steps {num_steps:,}: set agent.schedule_steps=0, for its whole"
            " length, or agent.learning_rate_end"
        )
    return agent


def score(experiment: Experiment, agent: Agent) -> evaluate.Result:
    """Evaluate an agent in the world of the experiment, by its protocol. Raises Mistake where that
    plays no episodes."""
    protocol = experiment.evaluation
    if not protocol.num_episodes:
        raise Mistake("there is nothing to evaluate: add --evaluation.num-episodes 30")
    learners = getattr(
        agent, "num_learners", 1
    )  # each is to be scored, if there are episodes enough
    num_envs = min(max(protocol.num_envs, learners), protocol.num_episodes)
    env = dataclasses.replace(experiment.env.for_evaluation(), num_envs=num_envs).make()
    try:
        if env.spec.num_players == 1:
            return evaluate.evaluate(env, agent, protocol)
        other = opponent(experiment, env.spec)
        if protocol.epsilon > 0:
            agent = evaluate.Noisy(agent, protocol.epsilon, protocol.seed)
        terms = match.Config(protocol.num_episodes, protocol.random_opening, protocol.seed)
        found = match.match(match.rules(env.spec), agent, other, terms)
        lengths, stalled = (found.actions >= 0).sum(1), np.zeros(len(found.scores), bool)
        return evaluate.Result(found.scores, lengths, stalled, opponent=protocol.opponent)
    finally:
        env.close()


def opponent(experiment: Experiment, spec: Spec) -> Agent:
    """Return who the agent is scored against in a game for two. Raises Mistake where there is none
    of that name, where it does not play that game, for an opening that no game survives, and where
    the world tells no rules."""
    protocol = experiment.evaluation
    try:
        game = match.rules(spec)
    except Mistake as mistake:
        raise Mistake(f"{mistake}: add --evaluation.num-episodes 0") from mistake
    match.openings(game, 1, protocol.random_opening, np.random.default_rng(0))
    return config.player(protocol.opponent).make(spec, protocol.seed, learns=False)


def sentence(result: evaluate.Result) -> str:
    """Return an evaluation in one line."""
    numbers = result.summary()
    decimals = 1 if np.ptp(result.scores) > 5 else 3  # scores of 0 or 1 need more of them
    mean, low, high, median = (
        f"{numbers[name]:.{decimals}f}" for name in ("mean", "ci_low", "ci_high", "median")
    )
    played = f"games against {result.opponent}" if result.opponent else "episodes"
    text = (
        f"evaluated {len(result.scores)} {played}: mean {mean}, 95% interval {low} to {high},"
        f" median {median}"
    )
    if "human_normalized" in numbers:
        text += f", {numbers['human_normalized']:.0%} of human"
    if result.stalled.any():
        text += f"; {result.stalled.sum()} stalled and were cut"
    return text


def num_bytes(state: State) -> int:
    """Return how much the arrays of a flat saved state take."""
    return sum(value.nbytes for value in state.values() if isinstance(value, np.ndarray))
