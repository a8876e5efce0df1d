"""Deep Q-learning (Mnih et al. 2015), with the parts of Rainbow (Hessel et al. 2018) that pay for
themselves as switches: double (van Hasselt et al. 2016), dueling (Wang et al. 2016), n-step
returns (Sutton 1988), prioritized replay (Schaul et al. 2016). Adam instead of RMSProp.

With memory (Hausknecht & Stone 2015) it learns from sequences that begin anywhere in an episode,
without memory of what was before; their first moments are only lived through, to have some
(burn-in, Kapturowski et al. 2019).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.action_values import check, epsilon_greedy, greedy
from rlplay.core import Agent, Decision, Mistake, NonFinite, Range, Spec, State, Step, Trajectory
from rlplay.nets import encoders, hardware, recurrent
from rlplay.nets.descent import Descent, seeded
from rlplay.nets.heads import QHead
from rlplay.replay import Batch, Replay, Sequences
from rlplay.rollout import mean
from rlplay.schedule import Linear
from rlplay.targets import n_step_return, q_target


@dataclass(frozen=True)
class Config:
    name: Literal["dqn"] = "dqn"
    encoder: encoders.Config = field(default_factory=encoders.Config)
    """The network from observation to features."""
    hidden: Annotated[int, Range(0)] = 512
    """Width of the layer between features and action values; 0 for none."""
    recurrent: recurrent.Config = field(default_factory=recurrent.Config)
    """Memory before that layer, for worlds that do not show all that matters in one moment."""
    sequence_length: Annotated[int, Range(1)] = 1
    """Moments in a row that a recurrent agent learns from; 1 for all others. Kapturowski et al.
    2019: 80."""
    burn_in: Annotated[int, Range(0)] = 0
    """Moments before them that are lived through again, to remember. Kapturowski et al. 2019: 40.
    """
    learning_rate: Annotated[float, Range(0, 1)] = 1e-4
    """Step size of Adam. Mnih et al. 2015: 2.5e-4 with RMSProp."""
    adam_eps: Annotated[float, Range(0, 1)] = 1.5e-4
    """Adam's epsilon. Hessel et al. 2018: 1.5e-4."""
    max_grad_norm: Annotated[float, Range(0)] = 10.0
    """The gradient's norm is clipped to this."""
    discount: Annotated[float, Range(0, 1)] = 0.99
    """What a reward one step later is worth."""
    batch_size: Annotated[int, Range(1)] = 32
    """Transitions in one update; of a recurrent agent, a multiple of `sequence_length`."""
    steps_per_update: Annotated[int, Range(1)] = 4
    """Agent steps between two updates."""
    target_every: Annotated[int, Range(1)] = 10_000
    """Agent steps between two copies of the network to the target network. Mnih et al. 2015:
    40,000, which are 10,000 updates."""
    learning_starts: Annotated[int, Range(1)] = 50_000
    """Moments in memory before the first update."""
    replay_size: Annotated[int, Range(1, 1_000_000_000)] = 1_000_000
    """Moments that the memory holds."""
    epsilon_start: Annotated[float, Range(0, 1)] = 1.0
    """Share of random actions at first."""
    epsilon_end: Annotated[float, Range(0, 1)] = 0.1
    """Share of random actions after `epsilon_steps`."""
    epsilon_steps: Annotated[int, Range(1)] = 1_000_000
    """Agent steps over which the share of random actions falls."""
    double: bool = False
    """Choose the next action by the online network, value it by the target network."""
    dueling: bool = False
    """Separate streams for the value of the state and the advantages of the actions."""
    n_step: Annotated[int, Range(1, 100)] = 1
    """Rewards summed before the bootstrap (n-step returns)."""
    prioritized: bool = False
    """Replay what surprised more often."""
    priority_exponent: Annotated[float, Range(0, 1)] = 0.5
    """How much more often; 0 is uniform."""
    priority_beta: Annotated[float, Range(0, 1)] = 0.4
    """How far importance weights correct for it."""
    device: hardware.DeviceName = "auto"
    """auto is CUDA where there is one."""
    precision: hardware.PrecisionName = "auto"
    """auto is bfloat16 for pictures where the processor has it in hardware."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> DQN:
        """Build the agent. Raises Mistake for continuous actions, for several players, for a
        memory that does not fit or is too small to start learning from, and for a recurrent agent
        that is to learn from anything but whole sequences."""
        check(self.name, spec)
        if self.learning_starts > self.replay_size:
            raise Mistake(
                f"learning would never start: agent.learning_starts {self.learning_starts:,} is"
                f" more than agent.replay_size {self.replay_size:,}; make it smaller"
            )
        self.check_sequences()
        return DQN(self, spec, seed, learns)

    def check_sequences(self) -> None:
        """Raise Mistake where memory and the length of sequences do not go together."""
        length = self.sequence_length
        if self.recurrent.name == "none":
            if length > 1 or self.burn_in:
                raise Mistake(
                    "only a recurrent agent learns from sequences: set agent.recurrent.name=lstm,"
                    " or leave agent.sequence_length and agent.burn_in out"
                )
        elif length == 1:
            raise Mistake(
                "a recurrent agent cannot learn from single steps: set agent.sequence_length=16"
            )
        elif self.prioritized:
            raise Mistake("a recurrent dqn replays uniformly: set agent.prioritized=false")
        elif self.batch_size % length:
            raise Mistake(
                f"agent.batch_size {self.batch_size} does not hold whole sequences of {length}"
                f" steps: set agent.batch_size={-(-self.batch_size // length) * length}"
            )


class QNetwork(nn.Module):
    """Raw observations [B, ...] -> action values [B, A] float32, and memory. A recurrent one sees T
    moments of N envs, B = T * N, and the memory [N, M] before them; M is 0 for others."""

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__()
        self.space = spec.observation_space
        self.encoder = config.encoder.make(self.space)
        example = torch.zeros(1, *encoders.prepared_shape(self.space))
        num_features = self.encoder(example)[-1].numel()
        self.recurrent = config.recurrent.make(num_features)
        self.memory_size = 0
        if self.recurrent is not None:
            num_features, self.memory_size = config.recurrent.size, self.recurrent.memory_size
        self.head = QHead(num_features, spec.num_actions, config.hidden, config.dueling)

    def forward(self, observation: Tensor) -> Tensor:
        return self.head(self.features(observation))

    def remember(
        self, observation: Tensor, memory: Tensor, first: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return action values [T * N, A] and the memory after them, of T moments of N envs and the
        memory [N, M] before them. An episode begins where `first` [T * N] bool is true."""
        assert self.recurrent is not None, "made without memory"
        features = self.features(observation).flatten(1)
        features, memory = self.recurrent(features, memory, first)
        return self.head(features.to(self.dtype)), memory

    def features(self, observation: Tensor) -> Tensor:
        return self.encoder(encoders.prepare(observation, self.space, self.dtype))[-1]

    @property
    def dtype(self) -> torch.dtype:
        return next(chain(self.encoder.parameters(), self.head.parameters())).dtype


class DQN(Agent):
    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        self.config = config
        self.horizon = max(1, config.steps_per_update // spec.num_envs)
        self.device = hardware.device(config.device)
        self.epsilon = Linear(config.epsilon_start, config.epsilon_end, config.epsilon_steps)
        self.num_seen = 0  # agent steps
        self.random = np.random.default_rng([seed, 1])
        self.online = seeded(lambda: QNetwork(config, spec), seed, self.device)
        self.descent = Descent(self.online, config, self.device)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.recurs = config.recurrent.name != "none"
        size = self.online.memory_size
        self.playing = recurrent.Stream(size, self.device)  # is saved
        self.showing = recurrent.Stream(size, self.device)  # without exploring: leaves no trace
        self.memory = self._memory(spec) if learns else None
        self.sampling = torch.Generator().manual_seed(seed)

    def _memory(self, spec: Spec) -> Replay:
        """Make the memory, on the GPU where one computes and it fits. Raises Mistake where it fits
        nowhere."""
        config = self.config
        needed = Replay.num_bytes(spec, config.replay_size, config.prioritized)
        devices = dict.fromkeys([self.device, torch.device("cpu")])  # each once, in this order
        fitting = [device for device in devices if needed <= 0.9 * hardware.free_memory(device)]
        if not fitting:
            free = hardware.free_memory(torch.device("cpu"))
            raise Mistake(
                f"a replay memory of {config.replay_size:,} moments needs {needed / 1e9:.1f} GB,"
                f" but {free / 1e9:.1f} GB are free; set agent.replay_size to"
                f" {int(0.8 * free / needed * config.replay_size)} or less"
            )
        return Replay(
            spec,
            config.replay_size,
            discount=config.discount,
            num_steps=config.burn_in + config.sequence_length if self.recurs else config.n_step,
            prioritized=config.prioritized,
            priority_exponent=config.priority_exponent,
            device=fitting[0],
        )

    @property
    def replay(self) -> Replay:
        assert self.memory is not None, "made without learns=True"
        return self.memory

    def act(self, step: Step, explore: bool = True) -> Decision:
        with torch.inference_mode():
            observation = torch.from_numpy(step.observation).to(self.device)
            q_values = self.judge(observation, step, explore).cpu().numpy()  # [N, A]
        if explore:
            epsilon = self.epsilon(self.num_seen)
            action = epsilon_greedy(q_values, step.action_mask, epsilon, self.random)
        else:
            action = greedy(q_values, step.action_mask)
        return Decision(action, {"q_values": q_values})

    def judge(self, observation: Tensor, step: Step, explore: bool) -> Tensor:
        """Return action values [N, A], from what is seen and what is remembered."""
        if not self.recurs:
            return self.online(observation)
        stream = self.playing if explore else self.showing
        q_values, memory = self.online.remember(observation, stream.before(step))
        stream.remember(step, memory)
        return q_values

    def scores(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the actions' values [B, A] and the best of them [B] for pictures [B, C, H, W],
        uint8 or 0..1; to be explained: gradients pass. Of no use with memory."""
        q_values = self.online(picture)
        return q_values, q_values.amax(1)

    @property
    def encoder(self) -> encoders.Encoder:
        return self.online.encoder

    def learn(self, trajectory: Trajectory) -> dict[str, float]:
        """Remember the trajectory [T, N] and make the updates that are due. Returns metrics of the
        last update. Raises NonFinite, and remembers nothing, where a reward is not a number."""
        if not np.isfinite(trajectory.step.reward).all():  # a saved memory would keep it for ever
            rows = {"reward": trajectory.step.reward, "action": trajectory.decision.action}
            raise NonFinite("a reward is not finite", rows)
        self.replay.add(trajectory)
        before = self.num_seen
        self.num_seen += trajectory.decision.action.size
        metrics = {"rollout/exploration_rate": self.epsilon(self.num_seen)}
        if len(self.replay) < self.config.learning_starts or not self.replay.ready:
            return metrics
        every = self.config.steps_per_update
        for _ in range(before // every, self.num_seen // every):
            metrics |= self.update_sequences() if self.recurs else self.update()
        if before // self.config.target_every != self.num_seen // self.config.target_every:
            self.target.load_state_dict(self.online.state_dict())
        return metrics

    def update(self) -> dict[str, float]:
        """Make one step of gradient descent on a batch from the memory."""
        config = self.config
        sample = self.replay.sample(config.batch_size, self.sampling, config.priority_beta)
        batch = Batch(**{name: tensor.to(self.device) for name, tensor in vars(sample).items()})
        with torch.no_grad():
            next_target = self.target(batch.next_observation)
            next_online = self.online(batch.next_observation) if config.double else None
            target = q_target(batch.returns, batch.discount, next_target, next_online)
        q_value = self.online(batch.observation).gather(1, batch.action[:, None])[:, 0]
        error = q_value - target
        loss = (batch.weight * F.huber_loss(q_value, target, reduction="none")).mean()
        metrics = self.descend(loss, q_value.mean(), vars(batch))
        if config.prioritized:
            self.replay.update(batch.index, error.detach())
        return metrics

    def update_sequences(self) -> dict[str, float]:
        """Make one step of gradient descent on sequences from the memory."""
        config, burnt = self.config, self.config.burn_in
        num_sequences = config.batch_size // config.sequence_length
        sample = self.replay.sample_sequences(num_sequences, self.sampling)
        batch = Sequences(*(tensor.to(self.device) for tensor in sample))
        online = self.unrolled(self.online, batch)
        with torch.no_grad():
            target = self.unrolled(self.target, batch)
            choice = (online if config.double else target).argmax(2, keepdim=True)
            returns = n_step_return(
                batch.reward[burnt:],
                config.discount * batch.discount[burnt:],
                target.gather(2, choice)[..., 0],
                ~batch.over[burnt:-1],
                config.n_step,
            )
        live = (~batch.over[burnt:-1]).float()
        q_value = online[:-1].gather(2, batch.action[burnt:, :, None])[..., 0]
        loss = mean(F.huber_loss(q_value, returns, reduction="none"), live)
        return self.descend(loss, mean(q_value, live), batch._asdict())

    def unrolled(self, network: QNetwork, batch: Sequences) -> Tensor:
        """Return what a network says of the moments of B sequences after the burn-in, which passes
        no gradient, [sequence_length + 1, B, A]."""
        burnt, num_sequences = self.config.burn_in, batch.over.shape[1]
        first = torch.cat([torch.zeros_like(batch.over[:1]), batch.over[:-1]])
        memory = torch.zeros(num_sequences, network.memory_size, device=self.device)
        if burnt:
            with torch.no_grad():
                seen = batch.observation[:burnt].flatten(0, 1)
                memory = network.remember(seen, memory, first[:burnt].flatten())[1]
        seen = batch.observation[burnt:].flatten(0, 1)
        q_values = network.remember(seen, memory, first[burnt:].flatten())[0]
        return q_values.unflatten(0, (-1, num_sequences))

    def descend(self, loss: Tensor, q_value: Tensor, batch: dict[str, Tensor]) -> dict[str, float]:
        """Take a step of Adam down the gradient of `loss`. Returns metrics. Where one of them is
        not a number, raises NonFinite and changes nothing."""
        self.descent.step(loss, q_value=q_value)
        metrics = self.descent.metrics(batch)
        return metrics | {"train/n_updates": self.descent.num_updates}

    def begin(self) -> None:
        self.showing.forget()

    def cut(self) -> None:
        self.playing.forget()
        self.replay.cut()

    def state_dict(self) -> State:
        return {
            "weights": self.descent.optimizer.weights(),
            **({} if self.memory is None else {"replay": self.memory.state_dict()}),
            "agent": {
                "num_seen": self.num_seen,
                **self.descent.state_dict(),
                "target": {k: v.float().cpu().numpy() for k, v in self.target.state_dict().items()},
                "random": self.random.bit_generator.state,
                "sampling": self.sampling.get_state().numpy(),
                **({"playing": self.playing.state_dict()} if self.recurs else {}),
            },
        }

    def load_state_dict(self, state: State) -> None:
        self.descent.optimizer.load_weights(state["weights"])
        own = state["agent"]
        self.num_seen = own["num_seen"]
        self.descent.load_state_dict(own)
        saved = {**state["weights"], **own["target"]}  # a frozen encoder is the same in both
        names = self.descent.optimizer.names
        target = {name: torch.from_numpy(np.array(saved[name])) for name in names}
        self.target.load_state_dict(target)
        self.random.bit_generator.state = own["random"]
        self.sampling.set_state(torch.from_numpy(np.array(own["sampling"])))
        if self.recurs and "playing" in own:
            self.playing.load_state_dict(own["playing"])
        if "replay" in state:
            self.replay.load_state_dict(state["replay"])
