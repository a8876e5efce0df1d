"""Parallelised Q-learning (Gallici et al. 2024): no replay memory and no target network. Many envs
side by side, layer normalization and lambda-returns (Sutton 1988) make up for both."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Annotated, Literal

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.action_values import check, epsilon_greedy, greedy
from rlplay.core import Agent, Decision, NonFinite, Range, Spec, State, Step, Trajectory
from rlplay.nets import encoders, hardware
from rlplay.nets.descent import Descent, seeded
from rlplay.nets.heads import Float32Linear
from rlplay.rollout import Kept, divides, flattened, mean, shuffled
from rlplay.schedule import Linear, linear
from rlplay.targets import lambda_return


@dataclass(frozen=True)
class Config:
    name: Literal["pqn"] = "pqn"
    encoder: encoders.Config = field(default_factory=encoders.Config)
    """The network from observation to features."""
    hidden: Annotated[int, Range(0)] = 512
    """Width of the layer between features and action values; 0 for none."""
    horizon: Annotated[int, Range(1)] = 32
    """Agent steps of each env between two times of learning. Gallici et al. 2024: 32."""
    epochs: Annotated[int, Range(1)] = 2
    """How often each rollout is learned from. Gallici et al. 2024: 2."""
    batch_size: Annotated[int, Range(1)] = 128
    """Decisions in one update; must divide env.num_envs times agent.horizon. Gallici et al. 2024:
    128, with 128 envs."""
    learning_rate: Annotated[float, Range(0, 1)] = 2.5e-4
    """Step size of Adam at first. Gallici et al. 2024: 2.5e-4, of rectified Adam."""
    learning_rate_end: Annotated[float, Range(0, 1)] = 0.0
    """Step size of Adam after `schedule_steps`."""
    schedule_steps: Annotated[int, Range(0)] = 0
    """Agent steps over which the step size goes to its end; 0 for the whole training."""
    adam_eps: Annotated[float, Range(0, 1)] = 1e-5
    """Adam's epsilon."""
    max_grad_norm: Annotated[float, Range(0)] = 10.0
    """The gradient's norm is clipped to this."""
    discount: Annotated[float, Range(0, 1)] = 0.99
    """What a reward one step later is worth."""
    trace: Annotated[float, Range(0, 1)] = 0.65
    """Lambda of the returns: 0 looks one step ahead, 1 to the end. Gallici et al. 2024: 0.65."""
    epsilon_start: Annotated[float, Range(0, 1)] = 1.0
    """Share of random actions at first."""
    epsilon_end: Annotated[float, Range(0, 1)] = 0.001
    """Share of random actions after `epsilon_steps`. Gallici et al. 2024: 0.001."""
    epsilon_steps: Annotated[int, Range(1)] = 1_000_000
    """Agent steps over which the share of random actions falls."""
    device: hardware.DeviceName = "auto"
    """auto is CUDA where there is one."""
    precision: hardware.PrecisionName = "auto"
    """auto is bfloat16 for pictures where the processor has it in hardware."""
    compile: hardware.CompileName = "off"
    """What torch.compile makes of the network, which takes a minute or more at the start: `default`
    kernels of its own, `reduce-overhead` on CUDA one graph of them besides."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> PQN:
        """Build the agent. Raises Mistake for continuous actions, for several players, and where
        batches do not divide a rollout."""
        check(self.name, spec)
        if learns:
            divides(self.batch_size, spec.num_envs, self.horizon)
        return PQN(self, spec, seed)


class NormalizedQNetwork(nn.Module):
    """Raw observations [B, ...] -> action values [B, A] float32. The encoder's output and the
    hidden layer are normalized; in the paper, every layer is."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__()
        self.space: gymnasium.Space = spec.observation_space
        self.encoder = config.encoder.make(self.space)
        example = torch.zeros(1, *encoders.prepared_shape(self.space))
        width = self.encoder(example)[-1].numel()
        self.first = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, config.hidden) if config.hidden else None
        self.second = nn.LayerNorm(config.hidden) if config.hidden else None
        self.value = Float32Linear(config.hidden or width, spec.num_actions)

    def forward(self, observation: Tensor) -> Tensor:
        dtype = self.first.weight.dtype
        x = self.encoder(encoders.prepare(observation, self.space, dtype))[-1].flatten(1)
        x = self.first(x)
        if self.hidden is not None and self.second is not None:
            x = F.relu(self.second(self.hidden(x)))
        return self.value(x)


class PQN(Agent):
    def __init__(self, config: Config, spec: Spec, seed: int) -> None:
        self.config, self.horizon = config, config.horizon
        self.device = hardware.device(config.device)
        self.epsilon = Linear(config.epsilon_start, config.epsilon_end, config.epsilon_steps)
        self.learning_rate = linear(
            config.learning_rate, config.learning_rate_end, config.schedule_steps
        )
        self.num_seen = 0  # agent steps
        self.random = np.random.default_rng([seed, 1])
        self.shuffling = torch.Generator().manual_seed(seed)
        self.network = seeded(lambda: NormalizedQNetwork(config, spec), seed, self.device)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.descent = Descent(self.network, config, self.device)
        hardware.compiled(self.network, config.compile)
        self.acting: PQN | None = None
        self.kept = Kept(2 * config.horizon if self.device.type == "cuda" else 0)

    def act(self, step: Step, explore: bool = True) -> Decision:
        with torch.inference_mode():
            observation = hardware.moved(step.observation, self.device)
            q_values = self.network(observation).cpu().numpy()  # [N, A]
        if not explore:
            return Decision(greedy(q_values, step.action_mask), {"q_values": q_values})
        epsilon = self.epsilon(self.num_seen)
        action = epsilon_greedy(q_values, step.action_mask, epsilon, self.random)
        return Decision(action, {"q_values": q_values, **self.kept.add(observation)})

    def scores(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions' values [B, A] and the best of them [B] for pictures [B, C, H, W],
        uint8 or 0..1; to be explained: gradients pass."""
        q_values = self.network(picture)
        return q_values, q_values.amax(1)

    @property
    def encoder(self) -> encoders.Encoder:
        return self.network.encoder

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        """Make all updates on a trajectory [T, N]. Returns metrics, means over the updates."""
        config, (step, decision) = self.config, trajectory
        if not np.isfinite(step.reward).all():
            raise NonFinite("a reward is not finite", {"reward": step.reward})
        learning_rate = self.learning_rate(self.num_seen)
        self.descent.optimizer.set_learning_rate(learning_rate)
        with torch.inference_mode():
            last = self.network(hardware.moved(step.observation[-1], self.device))
        q_values = np.concatenate([decision.notes["q_values"], last.cpu().numpy()[None]])
        value = np.where(step.action_mask, q_values, -np.inf).max(2)  # [T + 1, N]
        arrays = (step.reward[1:, :, 0], config.discount * step.discount[1:], value)
        earnings = [torch.from_numpy(array) for array in arrays]
        live = torch.from_numpy(~step.done[:-1])
        returns = lambda_return(*earnings, live=live, trace=config.trace)
        observation = self.kept.take(decision.notes)
        if observation is None:
            observation = hardware.moved(step.observation[:-1], self.device)
        columns = {
            "observation": observation,
            "action": torch.from_numpy(decision.action),
            "returns": returns,
            "weight": live.float(),
        }
        flat = flattened({name: column.to(self.device) for name, column in columns.items()})
        for batch in shuffled(flat, config.batch_size, config.epochs, self.shuffling):
            self.update(batch)
        metrics = self.descent.metrics(flat)
        self.num_seen += decision.action.size
        return metrics | {
            "rollout/exploration_rate": self.epsilon(self.num_seen),
            "train/learning_rate": learning_rate,
            "train/n_updates": self.descent.num_updates,
        }

    def update(self, batch: dict[str, Tensor]) -> None:
        """Make one step of gradient descent on a batch."""
        q_values = self.network(batch["observation"])
        q_value = q_values.gather(1, batch["action"][:, None])[:, 0]
        loss = 0.5 * mean((q_value - batch["returns"]).square(), batch["weight"])
        self.descent.step(loss, q_value=q_value.mean())

    def actor(self) -> Agent:
        if self.acting is None:
            self.acting = copy.copy(self)
            network = copy.deepcopy(self.network)
            self.acting.network = hardware.compiled(network, self.config.compile)
        self.acting.network.load_state_dict(self.network.state_dict())
        self.acting.num_seen = self.num_seen
        return self.acting

    def state_dict(self) -> State:
        return {
            "weights": self.descent.optimizer.weights(),
            "agent": {
                "num_seen": self.num_seen,
                **self.descent.state_dict(),
                "random": self.random.bit_generator.state,
                "shuffling": self.shuffling.get_state().numpy(),
            },
        }

    def load_state_dict(self, state: State) -> None:
        self.descent.optimizer.load_weights(state["weights"])
        own = state["agent"]
        self.num_seen = own["num_seen"]
        self.descent.load_state_dict(own)
        self.random.bit_generator.state = own["random"]
        self.shuffling.set_state(torch.from_numpy(np.array(own["shuffling"])))
