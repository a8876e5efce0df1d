"""AlphaZero (Silver et al. 2018): a network learns from games that a search plays against itself,
and the search learns from the network. With two things that KataGo found to pay (Wu 2019): most
moves are played by a small search, and only those of a full one are learned from; and values can be
learned from what the search thought as well as from how the game ended.

It knows a game only by its rules (`Spec.model`), and of the search only what it returns. There is
no resigning in the middle of a game, which would leave its board idle until the others are through:
a game that is given up is played out by the network alone, so that no result is ever guessed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch.nn import functional as F

from rlplay import search
from rlplay.core import (
    Agent,
    Array,
    Decision,
    Game,
    Mistake,
    NonFinite,
    Range,
    Spec,
    State,
    Step,
    Trajectory,
)
from rlplay.nets import hardware
from rlplay.nets.hardware import Replayed
from rlplay.nets.optimize import Optimizer
from rlplay.nets.tower import NormName, Tower, for_playing, worth
from rlplay.positions import Positions
from rlplay.schedule import Linear

Part = tuple[Array, search.Searched]
"""Which of N boards, [n] int64, and what was found there."""
Work = Callable[[int, Array], search.Searched]
"""The search of the i-th part of the boards, [n] int64."""


@dataclass(frozen=True)
class Config:
    name: Literal["alphazero"] = "alphazero"
    blocks: Annotated[int, Range(0)] = 4
    """Residual blocks of the network, of two convolutions each. Silver et al. 2018: 19."""
    channels: Annotated[int, Range(1)] = 32
    """Feature planes in each of them. Silver et al. 2018: 256."""
    norm: NormName = "none"
    """batch for batch normalization, as in the paper; none learns faster on small networks."""
    global_pooling: bool = False
    """Let every second block tell all cells what the whole board looks like (Wu 2019)."""
    search: search.Config = field(default_factory=search.Config)
    """The search of self-play; num_simulations is that of a full one."""
    fast_simulations: Annotated[int, Range(0)] = 16
    """Simulations of the moves that are not learned from, without noise. Wu 2019: 100 to 200."""
    full_share: Annotated[float, Range(0, 1)] = 1.0
    """Share of moves that are searched in full and learned from, drawn for all games of a part (see
    num_parts) at once. Wu 2019: 0.25."""
    num_simulations_evaluation: Annotated[int, Range(0)] = 200
    """Simulations for each move when it plays to win; 0 for the network alone."""
    resign: Annotated[float, Range(0, 1)] = 0.0
    """Once a player's value falls below minus this, the game is played out by the network alone and
    no longer learned from; 0 for never."""
    value_mix: Annotated[float, Range(0, 1)] = 0.0
    """Share of the search's value in what the network learns, beside the game's result."""
    horizon: Annotated[int, Range(1)] = 8
    """Moves in each game between two times of learning."""
    replay_size: Annotated[int, Range(1, 1_000_000_000)] = 200_000
    """Positions in memory, of finished games."""
    learning_starts: Annotated[int, Range(1)] = 2_000
    """Positions in memory before the first update."""
    reuse: Annotated[float, Range(0)] = 8.0
    """How often each position is learned from, on average."""
    batch_size: Annotated[int, Range(1)] = 256
    """Positions in one update."""
    learning_rate: Annotated[float, Range(0, 1)] = 2e-3
    """Step size of Adam at first."""
    learning_rate_end: Annotated[float, Range(0, 1)] = 2e-4
    """Step size of Adam after `learning_rate_steps`."""
    learning_rate_steps: Annotated[int, Range(1)] = 1_000_000
    """Agent steps over which the step size falls."""
    weight_decay: Annotated[float, Range(0)] = 1e-4
    """Share of each weight that is lost in an update, times the step size."""
    max_grad_norm: Annotated[float, Range(0)] = 5.0
    """The gradient's norm is clipped to this."""
    value_weight: Annotated[float, Range(0)] = 1.0
    """Weight of the value's loss beside the policy's."""
    symmetries: bool = True
    """Learn from every position as turned or mirrored by chance."""
    num_parts: Annotated[int, Range(0)] = 0
    """Search the games in so many parts, each on its own thread: the trees of one grow while the
    network is asked about another. 0 for 2 on CUDA, and else one for each core that torch uses."""
    device: hardware.DeviceName = "auto"
    """auto is CUDA where there is one."""
    precision: hardware.PrecisionName = "auto"
    """auto is bfloat16 where the processor has it in hardware."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> AlphaZero:
        """Build the agent. Raises Mistake where the world is no game for two, and where settings
        contradict each other."""
        if not (hasattr(spec.model, "play") and hasattr(spec.model, "observe")):
            raise Mistake(
                "alphazero needs a game's rules, and this world tells none: choose a game"
            )
        if self.learning_starts > self.replay_size:
            raise Mistake(
                f"learning would never start: agent.learning_starts {self.learning_starts:,} is"
                f" more than agent.replay_size {self.replay_size:,}; make it smaller"
            )
        if self.resign and self.search.reuse:
            raise Mistake("games given up have no trees: set agent.resign=0, or search.reuse=False")
        return AlphaZero(self, spec, seed, learns)


class AlphaZero(Agent):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        self.config, self.game, self.horizon = config, spec.model, config.horizon
        self.device = hardware.device(config.device)
        self.learning_rate = Linear(
            config.learning_rate, config.learning_rate_end, config.learning_rate_steps
        )
        self.num_seen = self.num_updates = self.num_games = 0  # agent steps, updates, games
        self.due = 0.0  # updates that are owed to the positions seen
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tower = Tower(
                self.game.observation_shape,
                self.game.num_actions,
                blocks=config.blocks,
                channels=config.channels,
                norm=config.norm,
                global_pooling=config.global_pooling,
            ).to(self.device)
        pays = config.channels >= 16
        hardware.spare_threads(pays)
        self.dtype = hardware.precision(config.precision, self.device, pays)
        self.optimizer = Optimizer(
            self.tower,
            self.dtype,
            config.learning_rate,
            1e-8,
            config.max_grad_norm,
            config.weight_decay,
        )
        on_cuda = self.device.type == "cuda"
        num_parts = config.num_parts or (2 if on_cuda else torch.get_num_threads())
        self.num_parts = max(1, min(num_parts, spec.num_envs // (1 if config.num_parts else 32)))
        self.num_boards = -(-spec.num_envs // self.num_parts)  # asked about at once
        self.threads = ThreadPoolExecutor(self.num_parts, initializer=alone)
        self.evaluators = [Evaluator(self.game, self.device) for _ in range(2 * self.num_parts)]
        self.publish()
        self.random, self.drawing = (np.random.default_rng([seed, i]) for i in range(2))
        to_win = replace(config.search, reuse=False)  # by the board alone, without memory
        kinds = [config.search] * self.num_parts + [to_win] * self.num_parts
        searches = [
            search.Search(self.game, one, kind, np.random.default_rng([seed, 2 + i]))
            for i, (one, kind) in enumerate(zip(self.evaluators, kinds, strict=True))
        ]
        self.playing, self.thinking = searches[: self.num_parts], searches[self.num_parts :]
        self.ply = np.zeros(spec.num_envs, np.int64)  # [N] moves made in each game
        self.given_up = np.zeros(spec.num_envs, bool)  # [N]
        self.memory = Positions(self.game, spec.num_envs, config.replay_size) if learns else None
        self.timing = Timing()

    @property
    def positions(self) -> Positions:
        assert self.memory is not None, "made without learns=True"
        return self.memory

    def publish(self) -> None:
        """Let the search ask the network as it is now."""
        shape = (self.num_boards, *self.game.observation_shape)
        network = for_playing(self.tower, self.optimizer.masters, self.dtype, shape)
        for evaluator in self.evaluators:
            evaluator.ask = network
            if self.device.type == "cuda":  # each with a memory of its own for what goes in and out
                with torch.inference_mode():
                    evaluator.ask = Replayed(network, torch.zeros(shape, device=self.device))

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Search the boards `step.state` [N]: to win, or with `explore` to learn."""
        n = len(step.state)
        if not explore:
            count = self.config.num_simulations_evaluation
            parts = self.spread(
                lambda i, rows: self.thinking[i].run(step.state[rows], count), n, 32
            )
            found = joined(n, parts)
            return noted(found, found.action, np.ones(n, bool))
        if n != len(self.ply):
            self.ply, self.given_up = np.zeros(n, np.int64), np.zeros(n, bool)
        started = time.perf_counter()
        config = self.config
        full = self.random.random(self.num_parts) < config.full_share
        counts = np.where(full, config.search.num_simulations, config.fast_simulations)
        live = ~(step.done | self.given_up)

        def explored(i: int, rows: Array) -> search.Searched:
            return self.explore(i, step.state[rows], live[rows], int(counts[i]), bool(full[i]))

        parts = self.spread(explored, n, 1)
        chosen = [
            self.playing[i].choose(found, self.ply[rows], explore=True)
            for i, (rows, found) in enumerate(parts)
        ]
        found = joined(n, parts)
        learned = np.concatenate([np.full(len(rows), full[i]) for i, (rows, _) in enumerate(parts)])
        self.ply = np.where(step.done, 0, self.ply + 1)
        if config.resign:
            self.given_up = (self.given_up | (found.value < -config.resign)) & ~step.done
        self.timing.simulations += sum(
            int(live[rows].sum() * counts[i]) for i, (rows, _) in enumerate(parts)
        )
        self.timing.seconds += time.perf_counter() - started
        return noted(found, np.concatenate(chosen), learned & live)

    def spread(self, work: Work, n: int, at_least: int) -> list[Part]:
        """Do the `work` on N games in parts of `at_least` so many, each on its own thread."""
        num_parts = max(1, min(self.num_parts, n // at_least))
        rows = np.array_split(np.arange(n), num_parts)
        done = map if num_parts == 1 else self.threads.map
        return list(zip(rows, done(work, range(num_parts), rows), strict=True))

    def explore(self, i: int, state: Array, live: Array, count: int, full: bool) -> search.Searched:
        """Search the i-th part of the games as they are played to learn from; `live` [n] bool are
        neither over nor given up."""
        one = self.playing[i]
        if not self.config.resign or live.all():
            return one.run(state, count, explore=full)
        parts = [(np.flatnonzero(~live), one.run(state[~live], 0))]
        if live.any():
            parts.append((np.flatnonzero(live), one.run(state[live], count, explore=full)))
        return joined(len(state), parts)

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        """Remember the games that ended and make the updates that are due. Returns metrics of the
        games, of the last update, and of the self-play since the last time."""
        config = self.config
        games = self.positions.add(trajectory, config.value_mix)
        self.num_seen += trajectory.decision.action.size
        self.num_games += len(games.length)
        metrics: dict[str, float] = {"rollout/games": self.num_games}
        if len(games.length):
            metrics["rollout/game_length"] = float(games.length.mean())
            metrics["rollout/draw_rate"] = float((games.first == 0).mean())
            metrics["rollout/first_player_rate"] = float((games.first > 0).mean())
        if len(self.positions) >= config.learning_starts:
            self.due += games.num_positions * config.reuse / config.batch_size
        rate = self.learning_rate(self.num_seen)
        self.optimizer.set_learning_rate(rate)
        if self.due >= 1:
            while self.due >= 1:
                self.due -= 1
                metrics |= self.update()
            metrics |= {"train/learning_rate": rate, "train/n_updates": self.num_updates}
            self.publish()
        metrics |= self.timing.metrics(self.evaluators[: self.num_parts], len(games.length))
        self.timing = Timing()
        return metrics

    def update(self) -> dict[str, float]:
        """Make one step of gradient descent on positions from the memory."""
        config = self.config
        batch = self.positions.sample(config.batch_size, self.drawing, config.symmetries)
        planes, mask, policy, value = (
            torch.from_numpy(array).to(self.device, non_blocking=True) for array in batch
        )
        logits, points = self.tower.train()(planes)
        chances = logits.masked_fill(~mask, -1e9).log_softmax(1)  # logarithms of them
        policy_loss = -(policy * chances).sum(1).mean()
        value_loss = F.binary_cross_entropy_with_logits(points, (1 + value) / 2)
        loss = policy_loss + config.value_weight * value_loss
        norm = self.optimizer.step(loss)
        if not (np.isfinite(norm) and np.isfinite(loss.item())):
            raise NonFinite(f"loss {loss.item()} or gradient {norm} is not finite", batch._asdict())
        self.num_updates += 1
        entropy = -(chances.exp() * chances).sum(1).mean()
        return {
            "train/loss": loss.item(),
            "train/policy_loss": policy_loss.item(),
            "train/value_loss": value_loss.item(),
            "train/policy_entropy": entropy.item(),
            "train/grad_norm": norm,
        }

    def cut(self) -> None:
        self.positions.cut()
        self.ply[:], self.given_up[:] = 0, False
        for searching in self.playing:
            searching.forget()

    def state_dict(self) -> State:
        buffers = {name: b.detach().cpu().numpy() for name, b in self.tower.named_buffers()}
        own = {
            "game": self.game.name,
            "num_seen": self.num_seen,
            "num_updates": self.num_updates,
            "num_games": self.num_games,
            "due": self.due,
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
            "drawing": self.drawing.bit_generator.state,
            "searches": [dict(searching.state_dict()) for searching in self.playing],
            "ply": self.ply,
            "given_up": self.given_up,
        }
        parts = {"weights": {**self.optimizer.weights(), **buffers}, "agent": own}
        if self.memory is not None:
            own["running"] = self.memory.running_games()
            parts["replay"] = self.memory.state_dict()
        return parts

    def load_state_dict(self, state: State) -> None:
        """Take over a saved agent. Raises Mistake where it has learned another game, or with
        another network."""
        own = state["agent"]
        if own["game"] != self.game.name:
            raise Mistake(
                f"this agent has learned {own['game']}, which is not {self.game.name}: choose a run"
                f" of {self.game.name}, or set the env to {own['game']}"
            )
        buffers = dict(self.tower.named_buffers())
        weights = dict(state["weights"])
        for name in buffers.keys() & weights.keys():
            buffers[name].copy_(torch.from_numpy(np.array(weights.pop(name))))
        self.optimizer.load_weights(weights)
        self.optimizer.load_state_dict(own["optimizer"])
        self.num_seen, self.num_updates = own["num_seen"], own["num_updates"]
        self.num_games, self.due = own["num_games"], own["due"]
        self.random.bit_generator.state = own["random"]
        self.drawing.bit_generator.state = own["drawing"]
        for searching, saved in zip(self.playing, own["searches"], strict=False):
            searching.load_state_dict(saved)
        self.ply, self.given_up = np.array(own["ply"]), np.array(own["given_up"])
        if self.memory is not None and "running" in own:
            self.memory.load_running_games(own["running"])
        if self.memory is not None and "replay" in state:
            self.memory.load_state_dict(state["replay"])
        self.publish()


class Evaluator:
    """What the network says of boards [N], for a search; and how long it took."""

    ask: Callable[[torch.Tensor], tuple[torch.Tensor, ...]]  # the network, [N, C, H, W]

    def __init__(self, game: Game, device: torch.device) -> None:
        self.game, self.device = game, device
        self.seconds, self.num_calls, self.num_boards = 0.0, 0, 0

    @torch.inference_mode()
    def __call__(self, state: Array) -> tuple[Array, Array]:
        planes = torch.from_numpy(self.game.observe(state))
        started = time.perf_counter()
        logits, points = self.ask(planes.to(self.device, non_blocking=True))
        value = worth(points)
        found = logits.cpu().numpy(), value.cpu().numpy()
        self.seconds += time.perf_counter() - started
        self.num_calls += 1
        self.num_boards += len(state)
        return found


class Timing:
    """What self-play has taken."""

    def __init__(self) -> None:
        self.seconds, self.simulations = 0.0, 0

    def metrics(self, evaluators: list[Evaluator], num_games: int) -> dict[str, float]:
        """Return rates, given how many games have ended, and start the evaluators' counts again."""
        inside = sum(one.seconds for one in evaluators) / len(evaluators)
        num_calls = sum(one.num_calls for one in evaluators)
        num_boards = sum(one.num_boards for one in evaluators)
        for one in evaluators:
            one.seconds, one.num_calls, one.num_boards = 0.0, 0, 0
        if not num_calls:
            return {}
        return {
            "time/games_per_second": num_games / self.seconds,
            "time/simulations_per_second": self.simulations / self.seconds,
            "time/evaluations_per_second": num_boards / self.seconds,
            "search/mean_batch": num_boards / num_calls,
            "time/net_share": inside / self.seconds,
        }


def alone() -> None:
    """Let this thread compute on its own core: waiting for others at every layer is what costs."""
    torch.set_num_threads(1)


def noted(found: search.Searched, action: Array, full: Array) -> Decision:
    """Return a decision with what the search has found; `full` [N] bool are to be learned from."""
    notes = {
        "policy": found.policy,
        "value": found.value,
        "visits": found.visits,
        "q_values": found.q_values,
        "full": full,
    }
    return Decision(action, notes)


def joined(n: int, parts: Sequence[Part]) -> search.Searched:
    """Return the searches of some of N boards each as one."""
    if len(parts) == 1:
        return parts[0][1]
    columns = {}
    for name in ("visits", "policy", "value", "q_values", "action"):
        some = getattr(parts[0][1], name)
        columns[name] = np.empty((n, *some.shape[1:]), some.dtype)
        for rows, found in parts:
            columns[name][rows] = getattr(found, name)
    return search.Searched(**columns, num_simulations=parts[-1][1].num_simulations)
