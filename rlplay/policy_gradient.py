"""What agents share that learn by policy gradient from what they have just done (Williams 1992;
Sutton et al. 2000): a network that says what to do and what to expect, acting, and a rollout as
tensors. What they learn from it is their own (agents/reinforce.py, a2c.py, ppo.py).

A game of two is learned from both sides at once: there, what the opponent may expect is what the
player loses.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import (
    Agent,
    Array,
    Decision,
    Mistake,
    NonFinite,
    Range,
    Spec,
    State,
    Step,
    Trajectory,
)
from rlplay.nets import encoders, hardware, recurrent
from rlplay.nets.descent import Descent, seeded
from rlplay.nets.distributions import Categorical, Distribution, Gaussian
from rlplay.nets.heads import PolicyHead, ValueHead
from rlplay.normalize import Observations, Rewards
from rlplay.rollout import Kept, Rollout, earned
from rlplay.schedule import Linear, linear


@dataclass(frozen=True)
class Config:
    """The settings that all of them have."""

    name: str = ""
    encoder: encoders.Config = field(default_factory=encoders.Config)
    """The network from observation to features."""
    hidden: Annotated[int, Range(0)] = 512
    """Width of the layer between features, or memory of them, and heads; 0 for none."""
    recurrent: recurrent.Config = field(default_factory=recurrent.Config)
    """Memory before that layer, for worlds that do not show all that matters in one moment."""
    shared: bool = True
    """One network for policy and value; else each has one of its own, which is better for vectors
    (Huang et al. 2022)."""
    deviation: Annotated[float, Range(1e-4, 7)] = 1.0
    """Standard deviation of continuous actions at first; 1 is half the way between the bounds."""
    deviation_by_state: bool = False
    """Let the deviation depend on what is seen."""
    squashed: bool = False
    """Bring continuous actions into their bounds by tanh (Haarnoja et al. 2018), not by cutting."""
    horizon: Annotated[int, Range(1)] = 128
    """Agent steps of each env between two times of learning."""
    discount: Annotated[float, Range(0, 1)] = 0.99
    """What a reward one step later is worth."""
    learning_rate: Annotated[float, Range(0, 1)] = 2.5e-4
    """Step size of Adam at first."""
    learning_rate_end: Annotated[float, Range(0, 1)] = 0.0
    """Step size of Adam after `schedule_steps`."""
    entropy_weight: Annotated[float, Range(0)] = 0.01
    """Weight of the policy's entropy, that keeps it trying, beside its gain, at first."""
    entropy_weight_end: Annotated[float, Range(0)] = 0.01
    """The same after `schedule_steps`."""
    schedule_steps: Annotated[int, Range(0)] = 0
    """Agent steps over which settings go from their first value to their `_end`; 0 for the whole
    training."""
    adam_eps: Annotated[float, Range(0, 1)] = 1e-5
    """Adam's epsilon. Huang et al. 2022: 1e-5."""
    max_grad_norm: Annotated[float, Range(0)] = 0.5
    """The gradient's norm is clipped to this."""
    normalize_observations: bool = False
    """Bring every number of a vector to mean 0 and deviation 1, as seen so far."""
    normalize_rewards: bool = False
    """Divide rewards by the deviation of their discounted sum so far (Engstrom et al. 2020)."""
    device: hardware.DeviceName = "auto"
    """auto is CUDA where there is one."""
    precision: hardware.PrecisionName = "auto"
    """auto is bfloat16 for pictures where the processor has it in hardware."""
    compile: hardware.CompileName = "off"
    """What torch.compile makes of the network, which takes a minute or more at the start: `default`
    kernels of its own, `reduce-overhead` on CUDA one graph of them besides."""

    def check(self, spec: Spec) -> None:
        """Raise Mistake for a world that no policy gradient can learn in."""
        actions, seen = spec.action_space, spec.observation_space
        if spec.num_players > 2:
            raise Mistake(
                f"the {self.name} agent plays alone or against one opponent, but this env has"
                f" {spec.num_players} players"
            )
        if self.recurrent.name != "none" and spec.num_players > 1:
            raise Mistake(
                f"the {self.name} agent remembers only where it plays alone, and this env has"
                f" {spec.num_players} players: set agent.recurrent.name=none"
            )
        if isinstance(actions, Box) and not actions.is_bounded():
            raise Mistake(
                f"the {self.name} agent needs bounded actions, and this env has {actions}: choose"
                " another env with env.name or env.id"
            )
        if self.normalize_observations and not (
            isinstance(seen, Box) and np.issubdtype(seen.dtype, np.floating)
        ):
            raise Mistake(
                "only vectors of fractional numbers can be normalized, and this env shows"
                f" {seen}: leave agent.normalize_observations out"
            )


class Network(nn.Module):
    """Observations [B, ...] and legal actions [B, A] -> a distribution over actions, values [B]
    float32, which are 0 where it is not `valued`, and memory. A recurrent one sees T moments of N
    envs, B = T * N, and the memory [N, M] before them; M is 0 for others."""

    def __init__(self, config: Config, spec: Spec, valued: bool) -> None:
        super().__init__()
        seen, apart = spec.observation_space, valued and not config.shared
        self.trunk = Trunk(config, seen)
        self.value_trunk = Trunk(config, seen) if apart else None
        self.memory_size = self.trunk.memory_size * (2 if apart else 1)  # M
        self.policy = PolicyHead(
            self.trunk.num_features,
            spec.action_space,
            config.deviation,
            config.deviation_by_state,
            config.squashed,
        )
        self.value = ValueHead(self.trunk.num_features) if valued else None
        for part in self.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                nn.init.orthogonal_(part.weight, 2**0.5)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        nn.init.orthogonal_(self.policy.layer.weight, 0.01)  # at first, all actions are alike
        if self.policy.by_state is not None:
            nn.init.orthogonal_(self.policy.by_state.weight, 0.01)
        if self.value is not None:
            nn.init.orthogonal_(self.value.layer.weight, 1)

    def forward(
        self,
        observation: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        first: Tensor | None = None,
    ) -> tuple[Distribution, Tensor, Tensor | None]:
        """`first` [B] bool is true where an episode begins; None for nowhere."""
        own = None if memory is None else memory[:, : self.trunk.memory_size]
        features, own = self.trunk(observation, own, first)
        policy, valued = self.policy(features, mask), features
        if self.value_trunk is not None:
            others = None if memory is None else memory[:, self.trunk.memory_size :]
            valued, others = self.value_trunk(observation, others, first)
            own = None if own is None or others is None else torch.cat([own, others], 1)
        if self.value is None:
            return policy, features.new_zeros(len(features), dtype=torch.float32), own
        return policy, self.value(valued), own


class Trunk(nn.Module):
    """Observations [B, ...], and memory where it has one, -> features [B, F] and memory."""

    def __init__(self, config: Config, space: gymnasium.Space) -> None:
        super().__init__()
        self.space = space
        self.encoder = config.encoder.make(space)
        example = torch.zeros(1, *encoders.prepared_shape(space))
        num_encoded = self.encoder(example)[-1].numel()
        self.recurrent = config.recurrent.make(num_encoded)
        self.memory_size = 0
        if self.recurrent is not None:
            num_encoded, self.memory_size = config.recurrent.size, self.recurrent.memory_size
        self.hidden = nn.Linear(num_encoded, config.hidden) if config.hidden else None
        self.num_features = config.hidden or num_encoded

    def forward(
        self, observation: Tensor, memory: Tensor | None, first: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        dtype = next((parameter.dtype for parameter in self.parameters()), torch.float32)
        features = self.encoder(encoders.prepare(observation, self.space, dtype))[-1].flatten(1)
        if self.recurrent is not None and memory is not None:
            features, memory = self.recurrent(features, memory, first)
        if self.hidden is not None:
            features = F.relu(self.hidden(features.to(self.hidden.weight.dtype)))
        return features, memory


class PolicyGradient(Agent):
    """Acts by a policy, and knows what it expects if it is `valued`. How it improves is still to be
    written."""

    def __init__(self, config: Config, spec: Spec, seed: int, valued: bool = True) -> None:
        config.check(spec)
        self.settings, self.spec, self.horizon = config, spec, config.horizon
        self.device = hardware.device(config.device)
        self.num_seen = 0  # agent steps
        self.network = seeded(lambda: Network(config, spec, valued), seed, self.device)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.descent = Descent(self.network, config, self.device)
        hardware.compiled(self.network, config.compile)
        self.recurs = config.recurrent.name != "none"
        size = self.network.memory_size
        self.playing = recurrent.Stream(size, self.device)  # is saved
        self.showing = recurrent.Stream(size, self.device)  # without exploring: leaves no trace
        self.learning_rate = self.schedule(config.learning_rate, config.learning_rate_end)
        self.entropy_weight = self.schedule(config.entropy_weight, config.entropy_weight_end)
        self.random = torch.Generator().manual_seed(seed)  # to act; another to learn, for both may
        self.shuffling = torch.Generator().manual_seed(seed)  # happen at once
        self.acting: PolicyGradient | None = None
        shape = spec.observation_space.shape or ()
        self.observations = Observations(shape) if config.normalize_observations else None
        rewards = Rewards(spec.num_envs, config.discount) if config.normalize_rewards else None
        self.rewards = rewards
        keeps = self.device.type == "cuda" and self.observations is None
        self.kept = Kept(2 * config.horizon if keeps else 0)

    def schedule(self, start: float, end: float) -> Linear:
        return linear(start, end, self.settings.schedule_steps)

    def act(self, step: Step, explore: bool = True) -> Decision:
        stream = self.playing if explore else self.showing
        memory = stream.before(step) if self.recurs else None
        with torch.inference_mode():
            observation, legal = self.seen(step.observation), self.legal(step.action_mask)
            policy, value, after = self.network(observation, legal, memory)
            sample = policy.sample(self.random) if explore else policy.mode()
            notes = {"log_prob": policy.log_prob(sample), "value": value}
            if memory is not None and after is not None:
                stream.remember(step, after)
                notes |= {"memory": memory} if explore else {}
            if self.observations is not None and explore:
                notes["seen"] = observation
            if isinstance(policy, Categorical):
                notes["policy"] = policy.probs
            else:
                notes["sample"] = sample
            action = policy.bounded(sample) if isinstance(policy, Gaussian) else sample
        space = self.spec.action_space
        chosen = action.cpu().numpy().reshape(-1, *space.shape or ())
        if isinstance(space, Box):
            middle, half = (space.high + space.low) / 2, (space.high - space.low) / 2
            chosen = np.clip(middle + half * chosen, space.low, space.high).astype(np.float32)
        told = {name: note.cpu().numpy() for name, note in notes.items()}
        return Decision(chosen, told | (self.kept.add(observation) if explore else {}))

    def scores(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits of the actions [B, A] and the values [B] of pictures [B, C, H, W],
        uint8 or 0..1; to be explained: gradients pass. Of no use with memory."""
        policy, value, _ = self.network(picture)
        assert isinstance(policy, Categorical), "only single actions have logits"
        return policy.logits, value

    @property
    def encoder(self) -> encoders.Encoder:
        return self.network.trunk.encoder

    def judge(self, batch: dict[str, Tensor]) -> tuple[Distribution, Tensor]:
        """Return what the network says of a batch: the policy, and the values [B]."""
        names = ("observation", "mask", "memory", "first")
        policy, value, _ = self.network(*(batch.get(name) for name in names))
        return policy, value

    def seen(self, observation: Array) -> Tensor:
        """Return observations [..., *shape] as the network sees them."""
        if self.observations is not None:
            observation = self.observations.normalized(observation)
        return self.tensor(observation)

    def legal(self, mask: Array) -> Tensor | None:
        """Return the legal actions [..., A], or None where all of them are."""
        everything = not isinstance(self.spec.action_space, Discrete) or mask.all()
        return None if everything else self.tensor(mask)

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        """Improve by a trajectory [T, N]. Returns metrics. Raises NonFinite where a reward or a
        loss is not a number, and Mistake where a game of two is not zero-sum."""
        step, decision = trajectory
        if not np.isfinite(step.reward).all():
            rows = {"reward": step.reward, "action": decision.action}
            raise NonFinite("a reward is not finite", rows)
        if step.observation.dtype.kind == "f" and not np.isfinite(step.observation).all():
            raise NonFinite("an observation is not finite", {"observation": step.observation})
        if self.spec.num_players > 1 and np.abs(step.reward.sum(2)).max() > 1e-4:
            raise Mistake(
                f"the {self.settings.name} agent plays both sides of a game, in which one player's"
                " gain must be the other's loss; in this env it is not: choose another env"
            )
        over = step.done
        if self.rewards is not None:
            self.rewards.add_rewards(earned(step), ~over[:-1], over[1:])
        learning_rate = self.learning_rate(self.num_seen)
        self.descent.optimizer.set_learning_rate(learning_rate)
        metrics = self.improve(trajectory)
        self.num_seen += over[1:].size
        if self.observations is not None and metrics:  # what waits was acted by the old ones
            shape = self.observations.mean.shape
            self.observations.add(step.observation[:-1].reshape(-1, *shape))
        counts = {"train/n_updates": self.descent.num_updates} if metrics else {}
        return {**metrics, **counts, "train/learning_rate": learning_rate}

    @abstractmethod
    def improve(self, trajectory: Trajectory) -> dict[str, float]:
        """Make the updates that are due, by the schedules as they stand at `num_seen`; return
        metrics of them, none where none were due."""

    def rollout(self, trajectory: Trajectory) -> Rollout:
        """Return a trajectory as tensors."""
        step, decision = trajectory
        mover, reward = step.player, earned(step)
        discount = self.settings.discount * step.discount[1:]
        discount = np.where(mover[1:] == mover[:-1], discount, -discount)
        if self.rewards is not None:
            reward = self.rewards.normalized(reward)
        notes = {name: self.tensor(note) for name, note in decision.notes.items()}
        observation = notes.get("seen", self.kept.take(decision.notes))
        if observation is None:
            observation = self.seen(step.observation[:-1])
        first = np.concatenate([np.zeros_like(step.done[:1]), step.done[:-1]])  # [T + 1, N]
        memory, first = notes.get("memory"), self.tensor(first)
        with torch.inference_mode():  # by the network of now, also where an older one acted ahead
            if memory is None:
                bootstrap = self.network(self.seen(step.observation[-1]))[1]
            else:  # what is remembered at the last moment comes from the one before it
                latest = self.seen(np.concatenate(step.observation[-2:]))
                bootstrap = self.network(latest, None, memory[-1], first[-2:].flatten())[1]
                bootstrap = bootstrap[len(memory[-1]) :]
        return Rollout(
            observation=observation,
            mask=self.legal(step.action_mask[:-1]),
            sample=notes["sample"] if "sample" in notes else self.tensor(decision.action),
            log_prob=notes["log_prob"],
            value=torch.cat([notes["value"], bootstrap[None].clone()]),
            reward=self.tensor(reward),
            discount=self.tensor(discount),
            live=self.tensor(~step.done[:-1]),
            memory=None if memory is None else memory[:1],
            first=first[:-1],
        )

    def tensor(self, array: Array) -> Tensor:
        return hardware.moved(array, self.device)

    def actor(self) -> Agent:
        if self.acting is None:
            self.acting = copy.copy(self)
            self.acting.network = copy.deepcopy(self.network)
            hardware.compiled(self.acting.network, self.settings.compile)
        self.acting.network.load_state_dict(self.network.state_dict())
        self.acting.observations = copy.deepcopy(self.observations)
        return self.acting

    def cut(self) -> None:
        self.playing.forget()
        if self.rewards is not None:
            self.rewards.cut()

    def begin(self) -> None:
        self.showing.forget()

    def state_dict(self) -> State:
        own = {
            "num_seen": self.num_seen,
            **self.descent.state_dict(),
            "random": self.random.get_state().numpy(),
            "shuffling": self.shuffling.get_state().numpy(),
        }
        if self.observations is not None:
            own["observations"] = self.observations.state_dict()
        if self.rewards is not None:
            own["rewards"] = self.rewards.state_dict()
        if self.recurs:
            own["playing"] = self.playing.state_dict()
        return {"weights": self.descent.optimizer.weights(), "agent": own}

    def load_state_dict(self, state: State) -> None:
        self.descent.optimizer.load_weights(state["weights"])
        own = state["agent"]
        self.num_seen = own["num_seen"]
        self.descent.load_state_dict(own)
        self.random.set_state(torch.from_numpy(np.array(own["random"])))
        if "shuffling" in own:  # earlier runs shuffled by the other one
            self.shuffling.set_state(torch.from_numpy(np.array(own["shuffling"])))
        playing = self.playing if self.recurs else None
        parts = {"observations": self.observations, "rewards": self.rewards, "playing": playing}
        for name, part in parts.items():
            if part is not None and name in own:
                part.load_state_dict(own[name])
