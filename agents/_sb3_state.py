"""What a model of Stable-Baselines3 is made of, as plain arrays: weights, optimizers, memory, and
the random numbers that it draws. No pickle."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.save_util import recursive_getattr
from torch import Tensor

from rlplay.core import Array, Mistake, State

MEMORY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
COUNTERS = ("num_timesteps", "_n_updates", "_n_calls", "exploration_rate")


class Randomness:
    """SB3 draws from the global random numbers of numpy and torch. Inside `with`, these are the
    model's own; outside, everybody's, as if nothing had been drawn."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.own: dict[str, Any] | None = None  # until the model has seeded them
        self.lock = threading.Lock()

    def __enter__(self) -> Randomness:
        self.lock.acquire()
        self.others = self.current()
        if self.own is not None:
            self.set(self.own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.own = self.current()
        self.set(self.others)
        self.lock.release()

    def current(self) -> dict[str, Any]:
        state = {
            "numpy": np.random.get_state(legacy=False),
            "torch": torch.get_rng_state().numpy(),
        }
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device).numpy()
        return state

    def set(self, state: State) -> None:
        np.random.set_state(state["numpy"])
        torch.set_rng_state(torch.from_numpy(np.array(state["torch"])))
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(torch.from_numpy(np.array(state["cuda"])), self.device)


def weights(model: BaseAlgorithm) -> dict[str, Array]:
    """Return all networks, the target networks among them, by flat name."""
    return {name: value.detach().cpu().numpy() for name, value in tensors(model).items()}


@torch.no_grad()
def load_weights(model: BaseAlgorithm, saved: State) -> None:
    """Take over saved networks. Raises Mistake where names or shapes are another network's."""
    mine = tensors(model)
    for name in mine.keys() | saved.keys():
        here = tuple(mine[name].shape) if name in mine else None
        there = saved[name].shape if name in saved else None
        if here != there:
            raise Mistake(
                f"the saved weights do not fit this network: {name} is {there} there and {here}"
                " here; set algorithm, policy and encoder as they were"
            )
    for name, value in mine.items():
        value.copy_(torch.from_numpy(np.array(saved[name])))


def tensors(model: BaseAlgorithm) -> dict[str, Tensor]:
    names = model._get_torch_save_params()[1]  # such as the logarithm of SAC's temperature
    others = {name: getattr(model, name) for name in names}
    return dict(model.policy.state_dict()) | {k: v for k, v in others.items() if v is not None}


def optimizers(model: BaseAlgorithm) -> dict[str, State]:
    """Return what each optimizer remembers of each parameter, by the parameter's number."""
    return {name: memories(optimizer) for name, optimizer in named_optimizers(model).items()}


def load_optimizers(model: BaseAlgorithm, saved: State) -> None:
    for name, optimizer in named_optimizers(model).items():
        state = {
            int(number): {key: to_torch(value) for key, value in memory.items()}
            for number, memory in saved[name].items()
        }
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def named_optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    found = {name: recursive_getattr(model, name) for name in model._get_torch_save_params()[0]}
    return {k: v for k, v in found.items() if isinstance(v, torch.optim.Optimizer)}


def memories(optimizer: torch.optim.Optimizer) -> State:
    return {
        str(number): {
            key: value.cpu().numpy() if isinstance(value, Tensor) else value
            for key, value in memory.items()
        }
        for number, memory in optimizer.state_dict()["state"].items()
    }


def to_torch(value: Any) -> Any:
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def counters(model: BaseAlgorithm) -> dict[str, float]:
    """Return how far the training is, of whatever the algorithm counts."""
    return {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)}


def memory(buffer: ReplayBuffer) -> State:
    """Return what is in a replay buffer: arrays [K, N, ...], live ones, and where it writes."""
    filled = buffer.size()
    arrays = {name: getattr(buffer, name)[:filled] for name in MEMORY}
    return arrays | {"pos": buffer.pos, "full": buffer.full}


def load_memory(buffer: ReplayBuffer, saved: State) -> None:
    """Take over a saved replay buffer. Raises Mistake where it was of another size."""
    filled, num_envs = saved["rewards"].shape
    size = filled if saved["full"] else max(filled, buffer.buffer_size)
    if (size, num_envs) != (buffer.buffer_size, buffer.n_envs):
        raise Mistake(
            f"the run was saved with a replay memory of {size} x {num_envs} moments and now has"
            f" one of {buffer.buffer_size} x {buffer.n_envs}; set buffer_size and num_envs as they"
            " were"
        )
    for name in MEMORY:
        getattr(buffer, name)[:filled] = saved[name]
    buffer.pos, buffer.full = int(saved["pos"]), bool(saved["full"])
