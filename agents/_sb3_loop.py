"""A model of Stable-Baselines3 as an agent: our loop acts and fills its buffers, and it trains. The
methods `explore` and `take` of the two kinds of algorithm do what SB3 does where it collects.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from agents import _sb3_state
from agents._sb3_rows import Rows, Stream, nearest_legal
from agents._sb3_state import Randomness
from rlplay.core import (
    Agent,
    Array,
    Decision,
    Mistake,
    NonFinite,
    Spec,
    State,
    Step,
    Trajectory,
)
from rlplay.nets import hardware

LSTM = ("actor_hidden", "actor_cell", "critic_hidden", "critic_cell")
"""Notes of a recurrent policy, [N, L, H] each: what it remembered before it looked."""


class SB3(Agent):
    """What all algorithms share."""

    model: Any

    def __init__(
        self,
        model: BaseAlgorithm,
        randomness: Randomness,
        spec: Spec,
        learns: bool,
        total_timesteps: int,
    ) -> None:
        self.model, self.randomness, self.total_timesteps = model, randomness, total_timesteps
        self.num_envs, self.learns = spec.num_envs, learns
        self.action_space = spec.action_space
        self.masks = isinstance(model, MaskablePPO) and spec.num_actions > 0
        self.rows = Rows(spec.num_envs)
        self.num_rows = 0  # taken from there
        hardware.spare_threads(pays=len(spec.observation_space.shape or ()) == 3)

    def act(self, step: Step, explore: bool = True) -> Decision:
        """Raises NonFinite where an observation is not a number."""
        seen = step.observation
        if seen.dtype.kind == "f" and not np.isfinite(seen).all():
            raise NonFinite("an observation is not finite", {"observation": seen})
        if explore:
            with self.drawing():
                decision = self.explore(step)
        else:
            with torch.no_grad():
                decision = self.show(step)
        action = decision.action
        if isinstance(self.action_space, Box):
            return decision._replace(action=action.astype(self.action_space.dtype, copy=False))
        action = action.astype(np.int64, copy=False)
        return decision._replace(action=nearest_legal(action, step.action_mask))

    @abstractmethod
    def explore(self, step: Step) -> Decision:
        """Decide as the algorithm explores; note under "stored" what its buffer is to hold. Where
        every env has come to an end nothing is drawn, for nothing of it is played."""

    @abstractmethod
    def show(self, step: Step) -> Decision:
        """Decide without chance."""

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        """Fill SB3's buffer with the trajectory [T, N] and train when it is time. Returns what SB3
        has logged meanwhile. Raises NonFinite where a reward or a loss is not a number."""
        reward = trajectory.step.reward
        if not np.isfinite(reward).all():
            raise NonFinite("a reward is not finite", {"reward": reward})
        self.rows.add(trajectory)
        logged = self.model.logger.name_to_value
        self.take()
        metrics = {name: float(value) for name, value in logged.items()}
        logged.clear()
        undefined = "train/explained_variance"  # where all returns are the same
        wrong = [k for k, v in metrics.items() if not np.isfinite(v) and k != undefined]
        if wrong:
            raise NonFinite(f"{wrong[0]} is not finite", {})
        return {name: value for name, value in metrics.items() if np.isfinite(value)}

    @abstractmethod
    def take(self) -> None:
        """Bring what waits into the buffer and train."""

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Draw from the model's own random numbers. Raises NonFinite where the network says nothing
        that could be drawn from."""
        try:
            with self.randomness:
                yield
        except ValueError as error:  # of torch's distributions
            if "invalid values" not in str(error):
                raise
            raise NonFinite("the network's output is not finite", {}) from error

    def count(self, num_rows: int) -> None:
        """Let the model know that it has seen so many more rows of N transitions."""
        self.num_rows += num_rows
        self.model.num_timesteps += num_rows * self.num_envs
        total = max(self.total_timesteps, self.model.num_timesteps)
        self.model._update_current_progress_remaining(self.model.num_timesteps, total)

    def tensor(self, array: Array) -> Tensor:
        return torch.as_tensor(array, device=self.model.device)

    def cut(self) -> None:
        self.rows = Rows(self.num_envs)

    def state_dict(self) -> State:
        """The weights are the policy's, target networks included. The one thing that is not saved
        is a memory larger than the run allows: SB3 then waits until it has `learning_starts`
        moments again."""
        return {
            "weights": _sb3_state.weights(self.model),
            "agent": {
                "optimizers": _sb3_state.optimizers(self.model),
                "counters": _sb3_state.counters(self.model),
                "random": self.randomness.own,
                "random_actions": self.model.action_space.np_random.bit_generator.state,
                "num_rows": self.num_rows,
                "waiting": {str(i): dict(waiting) for i, waiting in enumerate(self.rows.waiting)},
            },
        }

    def load_state_dict(self, state: State) -> None:
        """Raises Mistake where the network is another one."""
        _sb3_state.load_weights(self.model, state["weights"])
        own = state["agent"]
        _sb3_state.load_optimizers(self.model, own["optimizers"])
        for name, value in own["counters"].items():
            setattr(self.model, name, value)
        self.randomness.own = own["random"]
        self.model.action_space.np_random.bit_generator.state = own["random_actions"]
        if not self.learns:
            return
        if len(own["waiting"]) != self.num_envs:
            number = len(own["waiting"])
            raise Mistake(f"the run was saved with {number} envs: set env.num_envs={number}")
        self.num_rows = own["num_rows"]
        self.rows.waiting = [dict(own["waiting"][str(i)]) for i in range(self.num_envs)]


class OffPolicy(SB3):
    """DQN, QR-DQN, SAC, TQC, TD3, DDPG."""

    model: OffPolicyAlgorithm

    def explore(self, step: Step) -> Decision:
        model, space = self.model, self.action_space
        if step.done.all():
            action, _ = model.predict(step.observation, deterministic=True)
            stored = model.policy.scale_action(action) if isinstance(space, Box) else action
        else:
            model._last_obs = step.observation
            n = len(step.observation)
            action, stored = model._sample_action(model.learning_starts, model.action_noise, n)
        return Decision(action, {"stored": stored})

    def show(self, step: Step) -> Decision:
        action, _ = self.model.predict(step.observation, deterministic=True)
        notes = {}
        for name in ("q_net", "quantile_net"):
            if net := getattr(self.model, name, None):
                values = net(self.tensor(step.observation)).cpu().numpy()
                notes["q_values"] = values if values.ndim == 2 else values.mean(1)
        return Decision(action, notes)

    def take(self) -> None:
        model, buffer = self.model, self.model.replay_buffer
        assert buffer is not None
        rows = self.rows.take(len(self.rows))
        for k in range(len(rows["reward"]) if rows else 0):
            row = {name: column[k] for name, column in rows.items()}
            buffer.add(
                row["observation"],
                row["next_observation"],
                row["stored"],
                row["reward"],
                row["over"] | row["cut"],
                [{"TimeLimit.truncated": bool(cut)} for cut in row["cut"]],
            )
            self.count(1)
            model._on_step()
            frequency = model.train_freq.frequency  # pyright: ignore[reportAttributeAccessIssue]
            num_stored = buffer.size() * self.num_envs  # few after a resume without them
            filled = buffer.full or num_stored > model.learning_starts
            if (
                self.num_rows % frequency
                or not filled
                or model.num_timesteps <= model.learning_starts
            ):
                continue
            steps = model.gradient_steps if model.gradient_steps >= 0 else frequency * self.num_envs
            if steps:
                with self.drawing():
                    model.train(gradient_steps=steps, batch_size=model.batch_size)

    def cut(self) -> None:
        super().cut()
        buffer = self.model.replay_buffer
        assert buffer is not None
        if buffer.size():  # returns of several steps end there
            last = buffer.pos - 1
            buffer.timeouts[last] = np.maximum(buffer.timeouts[last], 1 - buffer.dones[last])

    def state_dict(self) -> State:
        assert self.model.replay_buffer is not None
        return {**super().state_dict(), "replay": _sb3_state.memory(self.model.replay_buffer)}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        if self.learns and "replay" in state:
            assert self.model.replay_buffer is not None
            _sb3_state.load_memory(self.model.replay_buffer, state["replay"])


class OnPolicy(SB3):
    """PPO, A2C, TRPO, RecurrentPPO, MaskablePPO."""

    model: OnPolicyAlgorithm

    def __init__(self, model: BaseAlgorithm, *arguments: Any) -> None:
        super().__init__(model, *arguments)
        self.horizon = self.model.n_steps
        self.recurrent = isinstance(model, RecurrentPPO)
        self.playing, self.showing = Stream(), Stream()

    def explore(self, step: Step) -> Decision:
        model, stream = self.model, self.playing
        model.policy.set_training_mode(False)
        starts = stream.starts(step)
        arguments: dict[str, Any] = {"deterministic": bool(step.done.all())}
        notes = {"starts": starts}
        if self.masks:
            arguments["action_masks"] = notes["mask"] = step.action_mask
        if self.recurrent:
            lstm = stream.lstm(model.policy, len(starts))
            notes |= {name: part.swapaxes(0, 1) for name, part in zip(LSTM, lstm, strict=True)}
            arguments |= {"lstm_states": self.states(lstm), "episode_starts": self.floats(starts)}
        with torch.no_grad():
            answer = model.policy(self.tensor(step.observation), **arguments)
        if self.recurrent:
            stream.memory = [part.cpu().numpy() for pair in answer[3] for part in pair]
        stored, value, log_prob = (part.cpu().numpy() for part in answer[:3])
        notes |= {"stored": stored, "value": value[:, 0], "log_prob": log_prob}
        action = stored
        if isinstance(self.action_space, Box):
            action = np.clip(stored, self.action_space.low, self.action_space.high)
        return Decision(action, notes)

    def show(self, step: Step) -> Decision:
        policy: Any = self.model.policy
        if self.recurrent:
            starts = self.showing.starts(step)
            memory = self.showing.lstm(policy, len(starts))
            action, after = policy.predict(
                step.observation, (memory[0], memory[1]), starts, deterministic=True
            )
            self.showing.memory = [*after, *memory[2:]]
            return Decision(action, {})
        masks = {"action_masks": step.action_mask} if self.masks else {}
        action, _ = policy.predict(step.observation, deterministic=True, **masks)
        observation = self.tensor(step.observation)
        notes = {"value": policy.predict_values(observation).cpu().numpy()[:, 0]}
        if isinstance(self.action_space, Discrete):
            distribution = policy.get_distribution(observation, **masks).distribution
            notes["policy"] = distribution.probs.cpu().numpy()
        return Decision(action, notes)

    def take(self) -> None:
        model = self.model
        missing = model.n_steps - len(self.rows)
        self.horizon = missing if missing > 0 else model.n_steps
        if missing > 0:
            return
        rows = self.rows.take(model.n_steps)
        self.rows = Rows(self.num_envs)  # what is left is of a policy about to change
        self.count(model.n_steps)
        self.fill(rows)
        with self.drawing():
            model.train()

    def fill(self, rows: Mapping[str, Array]) -> None:
        """Fill the rollout buffer with the rows [T, N, ...]."""
        model, buffer = self.model, self.model.rollout_buffer
        rewards = rows["reward"].copy()
        for t, i in np.argwhere(rows["cut"]):  # it ended only for the clock: what would have come
            value = self.value_after({name: column[t, i : i + 1] for name, column in rows.items()})
            rewards[t, i] += (model.gamma * value).item()
        buffer.reset()
        for t, reward in enumerate(rewards):
            row = {name: column[t] for name, column in rows.items()}
            more: dict[str, Any] = {"action_masks": row["mask"]} if self.masks else {}
            if self.recurrent:
                more["lstm_states"] = self.states([row[name].swapaxes(0, 1) for name in LSTM])
            buffer.add(
                row["observation"],
                row["stored"],
                reward,
                row["starts"],
                torch.from_numpy(row["value"]),
                torch.from_numpy(row["log_prob"]),
                **more,
            )
        last = {name: column[-1] for name, column in rows.items()}
        buffer.compute_returns_and_advantage(self.value_after(last), last["over"] | last["cut"])

    @torch.no_grad()
    def value_after(self, row: Mapping[str, Array]) -> Tensor:
        """Return the value of what followed on a row [M, ...] of transitions, [M, 1]."""
        policy: Any = self.model.policy
        policy.set_training_mode(False)
        following = self.tensor(row["next_observation"])
        if not self.recurrent:
            return policy.predict_values(following)
        states = self.states([row[name].swapaxes(0, 1) for name in LSTM])
        starts, observation = self.floats(row["starts"]), self.tensor(row["observation"])
        *_, after = policy.forward(observation, states, starts, deterministic=True)
        return policy.predict_values(following, after.vf, torch.zeros_like(starts))

    def states(self, lstm: list[Array]) -> RNNStates:
        """Return what an LSTM remembers, [L, N, H] each, as sb3-contrib wants it."""
        parts = [self.tensor(np.ascontiguousarray(part)) for part in lstm]
        return RNNStates((parts[0], parts[1]), (parts[2], parts[3]))

    def floats(self, flags: Array) -> Tensor:
        return self.tensor(flags.astype(np.float32))

    def begin(self) -> None:
        self.showing = Stream()

    def cut(self) -> None:
        super().cut()
        self.playing, self.horizon = Stream(), self.model.n_steps

    def state_dict(self) -> State:
        state = super().state_dict()
        memory = dict(zip(LSTM, self.playing.memory, strict=False))  # none, or of an LSTM
        playing = {"over": self.playing.over, "memory": memory}
        return {**state, "agent": {**state["agent"], "playing": playing, "horizon": self.horizon}}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        own = state["agent"]
        if self.learns:
            self.horizon = own["horizon"]
            self.playing.over = own["playing"]["over"]
            self.playing.memory = list(own["playing"]["memory"].values())
