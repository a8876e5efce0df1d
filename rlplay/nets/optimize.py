"""Adam for networks that compute in bfloat16 and learn in float32.

A step of Adam is often smaller than bfloat16 can add to a weight, so each bfloat16 parameter has a
float32 master that is stepped, saved and loaded; the parameter is a rounded copy of it
(Micikevicius et al. 2018). A float32 parameter is its own master.

Parameters that want no gradient are saved and loaded like the others, and never move; layers of an
encoder may learn slower than the rest (Howard & Ruder 2018).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rlplay.core import Array, Mistake, State


class Optimizer:
    """Adam (Kingma & Ba 2015) with the gradient's norm clipped to `max_grad_norm` and decoupled
    weight decay (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        learning_rate: float,
        eps: float,
        max_grad_norm: float,
        weight_decay: float = 0.0,
    ) -> None:
        self.names = [name for name, _ in module.named_parameters()]
        masters = [p.detach().clone() for p in module.parameters()]
        convert(module, dtype)
        self.parameters = list(module.parameters())
        self.masters = [
            parameter if parameter.dtype == torch.float32 else master.requires_grad_()
            for parameter, master in zip(self.parameters, masters, strict=True)
        ]
        pairs = [*zip(self.parameters, self.masters, strict=True)]
        self.rounded = [(p, m) for p, m in pairs if p is not m and p.requires_grad]
        for _, master in self.rounded:
            master.grad = torch.empty_like(master)  # once: fresh memory costs more than copying
        self.max_grad_norm = max_grad_norm
        known, groups = rates(module), dict[float, list[Tensor]]()
        for parameter, master in pairs:
            if parameter.requires_grad:
                groups.setdefault(known.get(parameter, 1.0), []).append(master)
        self.adam = torch.optim.Adam(
            [
                {"params": some, "lr": learning_rate * rate, "rate": rate}
                for rate, some in groups.items()
            ],
            learning_rate,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=True,
            fused=True,
        )
        self.broken = torch.zeros((), device=self.masters[0].device)  # 1 where `advance` gave up

    def step(self, loss: Tensor) -> float:
        """Step down the gradient of `loss`; return the gradient's norm before clipping. Where loss
        or norm is not finite nothing is changed."""
        norm = self.gradient(loss)
        size = norm.item()
        if np.isfinite(size) and np.isfinite(loss.item()):
            if size > self.max_grad_norm:
                torch.nn.utils.clip_grads_with_norm_(self.masters, self.max_grad_norm, norm)
            self.adam.step()
            self.publish()
        return size

    def advance(self, loss: Tensor) -> Tensor:
        """Do the same without waiting for the device, and return the norm as a tensor []. From a
        step on at which loss or norm is not finite, nothing is changed until `broken` is set back
        to 0: Adam's fused kernel looks at it where it runs."""
        norm = self.gradient(loss)
        self.broken.copy_(self.broken.maximum((~(norm + loss.detach()).isfinite()).float()))
        torch.nn.utils.clip_grads_with_norm_(self.masters, self.max_grad_norm, norm)
        vars(self.adam)["found_inf"] = self.broken  # as torch.amp.GradScaler tells it
        self.adam.step()
        self.publish()
        return norm

    def gradient(self, loss: Tensor) -> Tensor:
        """Bring the gradient of `loss` to the masters; return its norm, []."""
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()
        for parameter, master in self.rounded:
            assert master.grad is not None
            if parameter.grad is None:  # the loss does not reach it
                master.grad.zero_()
            else:
                master.grad.copy_(parameter.grad)
        return torch.nn.utils.get_total_norm([m.grad for m in self.masters if m.grad is not None])

    def set_learning_rate(self, learning_rate: float) -> None:
        for group in self.adam.param_groups:
            group["lr"] = learning_rate * group["rate"]

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the parameters."""
        if self.rounded:
            parameters, masters = zip(*self.rounded, strict=True)
            torch._foreach_copy_(parameters, masters)  # pyright: ignore[reportPrivateImportUsage]

    def weights(self) -> dict[str, Array]:
        """Return the float32 masters by parameter name."""
        masters = zip(self.names, self.masters, strict=True)
        return {name: master.detach().cpu().numpy() for name, master in masters}

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Array]) -> None:
        """Take over saved masters. Raises Mistake where names or shapes are another network's."""
        mine = {name: tuple(m.shape) for name, m in zip(self.names, self.masters, strict=True)}
        saved = {name: array.shape for name, array in weights.items()}
        for name in mine.keys() | saved.keys():
            if mine.get(name) != saved.get(name):
                raise Mistake(
                    f"the saved weights do not fit this network: {name} is {saved.get(name)} there"
                    f" and {mine.get(name)} here"
                )
        for name, parameter, master in zip(self.names, self.parameters, self.masters, strict=True):
            master.copy_(torch.from_numpy(np.array(weights[name])))
            parameter.copy_(master)

    def state_dict(self) -> State:
        """Return Adam's moments and step count by parameter name; empty before the first step."""
        return {
            name: {key: value.cpu().numpy() for key, value in self.adam.state[master].items()}
            for name, master in zip(self.names, self.masters, strict=True)
            if self.adam.state[master]
        }

    @torch.no_grad()
    def load_state_dict(self, state: State) -> None:
        for name, master in zip(self.names, self.masters, strict=True):
            # Adam's step count stays a float32 tensor on the device, as the fused kernel wants it;
            # and its moments lie in memory as the weights do, which that kernel does not check.
            moments = {}
            for key, value in state.get(name, {}).items():
                saved = torch.from_numpy(np.array(value)).to(master.device)
                like = saved.ndim == master.ndim > 0
                moments[key] = torch.empty_like(master).copy_(saved) if like else saved
            self.adam.state[master] = moments


def rates(module: nn.Module) -> dict[Tensor, float]:
    """Return how fast parameters learn that do not learn like the rest, as a share of its rate; see
    `Encoder.rates`."""
    return {
        parameter: rate
        for part in module.modules()
        for layer, rate in getattr(part, "rates", ())
        for parameter in layer.parameters()
    }


def convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Let `module` compute in `dtype`, but for its layers marked `keep_float32`."""
    module.to(dtype)
    for part in module.modules():
        if getattr(part, "keep_float32", False):
            part.float()
