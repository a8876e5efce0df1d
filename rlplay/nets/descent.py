"""How an agent's network is made, and how it learns: by steps of Adam down its losses, which are
counted, looked at together, and come to nothing where one is no number. Knows no agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from rlplay.core import NonFinite, State
from rlplay.nets import encoders, hardware
from rlplay.nets.optimize import Optimizer

Net = TypeVar("Net", bound=nn.Module)


class Settings(Protocol):
    """What an agent's Config says about it."""

    @property
    def encoder(self) -> encoders.Config: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def adam_eps(self) -> float: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def precision(self) -> hardware.PrecisionName: ...


def seeded(make: Callable[[], Net], seed: int, device: torch.device) -> Net:
    """Build a network from a seed of its own; the random numbers of others stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().to(device)


class Descent:
    """Steps of Adam down the losses of a network."""

    def __init__(self, network: nn.Module, settings: Settings, device: torch.device) -> None:
        """Bring the network to the numbers that suit it: bfloat16 pays for pictures."""
        pictures = settings.encoder.name != "mlp"
        hardware.spare_threads(pays=pictures)
        self.optimizer = Optimizer(
            network,
            hardware.precision(settings.precision, device, pays=pictures),
            settings.learning_rate,
            settings.adam_eps,
            settings.max_grad_norm,
        )
        self.num_updates = 0
        self.names: list[str] = []
        self.rows: list[Tensor] = []  # of steps not yet looked at

    def step(self, loss: Tensor, **found: Tensor) -> None:
        """Take a step down the gradient of `loss`, without waiting for the device, and keep what
        was `found` on the way, numbers by name. From one on whose loss or gradient is no number,
        steps change nothing."""
        norm = self.optimizer.advance(loss)
        row = {"loss": loss, "grad_norm": norm, **found}
        self.names = list(row)
        self.rows.append(torch.stack([number.detach().float() for number in row.values()]))

    def metrics(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Return the means over the steps since the last call: loss, norm of the gradient before it
        was clipped, and what was found. Raises NonFinite with the `batch` that they were taken on
        where a loss or norm is no number."""
        rows, self.rows = torch.stack(self.rows).cpu().numpy().astype(np.float64), []
        sound = np.isfinite(rows[:, :2]).all(1)
        self.num_updates += len(rows) if sound.all() else int(sound.argmin())
        if not sound.all():
            self.optimizer.broken.zero_()
            loss, norm = rows[sound.argmin(), :2]
            raise NonFinite(
                f"loss {loss} or gradient {norm} is not finite",
                {name: tensor.detach().cpu().numpy() for name, tensor in batch.items()},
            )
        means = rows.mean(0).tolist()
        return {f"train/{name}": mean for name, mean in zip(self.names, means, strict=True)}

    def state_dict(self) -> State:
        return {"num_updates": self.num_updates, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Take over a saved state, which may hold more."""
        self.num_updates = state["num_updates"]
        self.optimizer.load_state_dict(state["optimizer"])
