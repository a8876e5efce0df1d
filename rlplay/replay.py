"""Replay memory: what N envs have shown, every frame stored once, sampled uniformly or by priority.

Prioritized experience replay is proportional as in Schaul et al. (2016); stacks of frames and
next observations are rebuilt on the way out, as in Mnih et al. (2015). It does not know networks,
losses, or where exploration comes from.

Moments are numbered as they arrive, env by env: moment i is followed in its own env by i + N and
lies in slot i % L of a ring of L = capacity slots. Here N = 2, L = 8, and moment 10 comes next:

    slot      0  1  2  3  4  5  6  7
    moment    8  9  2  3  4  5  6  7        oldest moment 2, newest 9

The moment at which an episode is over is stored like any other, so a truncated episode bootstraps
from its own last observation; it is never sampled, because its decision is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor

from rlplay.core import Array, Mistake, Spec, State, Trajectory


@dataclass(frozen=True)
class Batch:
    """B transitions. Bootstrapped target: returns + discount * value(next_observation)."""

    observation: Tensor  # [B, ...] as the env showed it, in its dtype
    action: Tensor  # [B] int64, or [B, D] float32
    returns: Tensor  # [B] discounted sum of the rewards of the next n moments, or to the end
    discount: Tensor  # [B] what next_observation's value counts; 0 after termination, a lost life
    next_observation: Tensor  # [B, ...] n moments on, or the episode's last
    weight: Tensor  # [B] importance, at most 1
    index: Tensor  # [B] int64, moments' numbers, for `Replay.update`


class Sequences(NamedTuple):
    """What B envs went through in n + 1 moments each."""

    observation: Tensor  # [n + 1, B, ...] as the env showed it, in its dtype
    action: Tensor  # [n, B] int64, or [n, B, D] float32
    reward: Tensor  # [n, B] earned on arriving at the next moment
    discount: Tensor  # [n, B] 0 where the future is worth nothing there
    over: Tensor  # [n + 1, B] bool, the episode ended here: the next moment is a first one


class Ring(NamedTuple):
    """L slots of one moment of one env each."""

    frame: Tensor  # [L + 1, ...] the newest frame; row L stays zero, the time before an episode
    action: Tensor  # [L] smallest dtype that holds A, or [L, D] float32; decided at this moment
    reward: Tensor  # [L] earned on arriving at this moment
    discount: Tensor  # [L]
    over: Tensor  # [L] bool, the episode ended here, so the next moment is a first one


class Replay:
    """The newest `capacity` moments, rounded up to whole rows of N envs.

    A moment can be sampled once n later ones are stored, and until a frame of its stack is lost.
    Raises Mistake where `capacity` is too small for that, or an observation is not one array."""

    def __init__(
        self,
        spec: Spec,
        capacity: int,
        *,
        discount: float,
        num_steps: int = 1,
        prioritized: bool = False,
        priority_exponent: float = 0.5,
        device: str | torch.device = "cpu",
    ) -> None:
        self.num_envs, self.num_stacked, self.num_steps = spec.num_envs, spec.num_stacked, num_steps
        self.discount, self.priority_exponent = discount, priority_exponent
        self.capacity = -(-capacity // spec.num_envs) * spec.num_envs  # L
        self.device = torch.device(device)
        self.num_added = 0
        smallest = spec.num_envs * (num_steps + spec.num_stacked)
        if self.capacity < smallest:
            raise Mistake(f"a replay memory of {capacity} is too small: make it {smallest} or more")
        self.ring = make_ring(spec, self.capacity, self.device)
        self.over_here = torch.empty(self.capacity, dtype=torch.bool)  # as ring.over, on the CPU
        self.tree = SumTree(self.capacity + 1, self.device) if prioritized else None
        self.max_priority = torch.ones((), dtype=torch.float64, device=self.device)
        self.ahead = spec.num_envs * torch.arange(1, num_steps + 1, device=self.device)  # [n]
        self.back = spec.num_envs * torch.arange(spec.num_stacked, device=self.device)  # [k]

    @staticmethod
    def num_bytes(spec: Spec, capacity: int, prioritized: bool) -> int:
        """Return the bytes that a memory will take, without taking them."""
        replay = Replay(spec, capacity, discount=1.0, prioritized=prioritized, device="meta")
        tensors = [*replay.ring, replay.over_here, *(replay.tree.levels if replay.tree else [])]
        return sum(tensor.nbytes for tensor in tensors)

    def __len__(self) -> int:
        return min(self.num_added, self.capacity)

    @property
    def window(self) -> tuple[int, int]:
        """The moments low <= i < high have their whole stack and their n next moments stored."""
        oldest = max(0, self.num_added - self.capacity)
        low = oldest + (self.num_stacked - 1) * self.num_envs
        return low, max(low, self.num_added - self.num_steps * self.num_envs)

    @property
    def ready(self) -> bool:
        """Whether there is anything to sample."""
        (low, high), over = self.window, self.over_here.numpy()
        first, wrapped = low % self.capacity, low % self.capacity + high - low - self.capacity
        return not (over[first:][: high - low].all() and over[: max(0, wrapped)].all())

    def add(self, trajectory: Trajectory) -> None:
        """Store the T moments at which `trajectory` decided; its last comes with the next one."""
        step, over = trajectory.step, trajectory.step.done
        action = trajectory.decision.action
        num_moments, (_, high) = len(action), self.window
        frame = step.observation[:, :, -1] if self.num_stacked > 1 else step.observation
        columns = (frame, action, step.reward[:, :, 0], step.discount, over, over)
        skipped = max(0, num_moments - self.capacity // self.num_envs)
        self.num_added += skipped * self.num_envs
        for tensor, column in zip((*self.ring, self.over_here), columns, strict=True):
            self.write(tensor, column[skipped:num_moments])
        self.num_added += (num_moments - skipped) * self.num_envs
        if self.tree is not None:
            self.enter(self.tree, high)

    def write(self, tensor: Tensor, column: Array) -> None:
        """Copy `column` [T, N, ...] into the next slots, on both sides of the seam."""
        rows = torch.from_numpy(column.reshape(-1, *column.shape[2:]))  # [T * N, ...]
        first = self.num_added % self.capacity
        room = min(len(rows), self.capacity - first)
        tensor[first : first + room] = rows[:room]
        tensor[: len(rows) - room] = rows[room:]

    def enter(self, tree: SumTree, high: int) -> None:
        """Give priorities to what is new since the window ended at `high`, and take them from
        what has left it: the slots after `high`, round to where the window starts."""
        low, new_high = self.window
        end = self.num_added + (self.num_stacked - 1) * self.num_envs
        moment = torch.arange(max(high, low), end, device=self.device)
        slot = moment % self.capacity
        sampleable = (moment < new_high) & ~self.ring.over[slot]
        tree.write(slot, self.max_priority * sampleable)

    def cut(self) -> None:
        """The world is about to start anew: the newest moments are the last of their episodes,
        cut short, and the next to come are first ones."""
        if self.num_added:
            newest = (self.num_added - self.num_envs) % self.capacity
            for over in (self.ring.over, self.over_here):
                over[newest : newest + self.num_envs] = True

    def sample(self, batch_size: int, generator: torch.Generator, beta: float = 0.4) -> Batch:
        """Draw `batch_size` moments with replacement. `generator` lives on the CPU, so that a seed
        draws the same moments on every device; nothing waits for the device.

        Raises ValueError where there is nothing to sample yet."""
        if not self.ready:
            raise ValueError(f"{len(self)} moments are stored, and none of them can be sampled yet")
        if self.tree is None:
            moment = self.draw(batch_size, generator).to(self.device, non_blocking=True)
            weight = torch.ones(batch_size, device=self.device)
        else:
            slot, priority = self.tree.draw(batch_size, generator)
            oldest = self.num_added - self.capacity
            moment = oldest + (slot - oldest) % self.capacity
            weight = ((priority.min() / priority) ** beta).float()
        returns, discount, num_walked = self.walk(moment)
        seen = self.observe(torch.cat([moment, moment + num_walked * self.num_envs]))
        action = self.ring.action.index_select(0, moment % self.capacity)
        return Batch(
            observation=seen[:batch_size],
            action=action if action.is_floating_point() else action.long(),
            returns=returns,
            discount=discount,
            next_observation=seen[batch_size:],
            weight=weight,
            index=moment,
        )

    def sample_sequences(self, batch_size: int, generator: torch.Generator) -> Sequences:
        """Draw `batch_size` moments uniformly, with replacement, each with the n that follow in its
        env, which may be of several episodes. Raises ValueError where there are none yet."""
        if not self.ready:
            raise ValueError(f"{len(self)} moments are stored, and none of them can be sampled yet")
        moment = self.draw(batch_size, generator).to(self.device, non_blocking=True)
        moment = torch.cat([moment[None], moment + self.ahead[:, None]])  # [n + 1, B]
        slot = moment % self.capacity
        action = self.ring.action[slot[:-1]]
        return Sequences(
            observation=self.observe(moment.view(-1)).unflatten(0, moment.shape),
            action=action if action.is_floating_point() else action.long(),
            reward=self.ring.reward[slot[1:]],
            discount=self.ring.discount[slot[1:]],
            over=self.ring.over[slot],
        )

    def draw(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """Return moments [B] int64, each drawn uniformly from all that can be sampled."""
        low, high = self.window
        found = torch.empty(0, dtype=torch.int64)
        while len(found) < batch_size:
            moment = torch.randint(low, high, (2 * batch_size,), generator=generator)
            over = self.over_here.index_select(0, moment % self.capacity)
            found = torch.cat([found, moment[~over]])
        return found[:batch_size]

    def walk(self, moment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Go n moments on from `moment` [B], or to the end of its episode: the discounted sum of
        the rewards [B], what a value there counts [B], and the number of moments gone [B]."""
        slot = (moment[:, None] + self.ahead) % self.capacity  # [B, n]
        reward, discount, over = (ring[slot] for ring in self.ring[2:])  # [B, n]
        reached = over.cumsum(1) == over  # [B, n] nothing was over before
        discount = torch.where(reached, self.discount * discount, 1.0).cumprod(1)
        returns = reward[:, 0]
        if self.num_steps > 1:
            returns = returns + (reward * reached)[:, 1:].mul(discount[:, :-1]).sum(1)
        return returns, discount[:, -1], reached.sum(1)

    def observe(self, moment: Tensor) -> Tensor:
        """Return what the envs showed at `moment` [B], stacks rebuilt, [B, ...]."""
        if self.num_stacked == 1:
            return self.ring.frame.index_select(0, moment % self.capacity)
        slot = (moment[:, None] - self.back) % self.capacity  # [B, k] newest first
        over = self.ring.over[slot]
        over[:, 0] = False  # an episode's last observation still has its stack
        slot = torch.where(over.cumsum(1) > 0, self.capacity, slot).flip(1)  # [B, k] oldest first
        return self.ring.frame.index_select(0, slot.view(-1)).unflatten(0, slot.shape)

    def update(self, index: Tensor, td_error: Tensor) -> None:
        """Set the priorities of the moments `index` [B] from their errors [B]. What has since left
        the memory is passed over; a uniform memory has no priorities and does nothing."""
        if self.tree is None:
            return
        index, td_error = index.to(self.device), td_error.to(self.device)
        low, high = self.window
        slot = index % self.capacity
        sampleable = (low <= index) & (index < high) & ~self.ring.over[slot]
        priority = (td_error.detach().abs().double() + 1e-6) ** self.priority_exponent
        priority = torch.where(sampleable, priority, 0.0)
        self.tree.write(torch.where(sampleable, slot, self.capacity), priority)
        self.max_priority = torch.maximum(self.max_priority, priority.max())

    def state_dict(self) -> State:
        """Return the filled slots, as arrays that are the live ones on the CPU, and what they need
        to be found again."""
        names = ("num_added", "capacity", "num_envs", "num_stacked", "num_steps")
        state: dict[str, int | Array] = {name: getattr(self, name) for name in names}
        arrays = self.ring._asdict()
        if self.tree is not None:
            arrays["priority"] = self.tree.levels[0]
        state |= {name: tensor[: len(self)].cpu().numpy() for name, tensor in arrays.items()}
        return state | {"max_priority": self.max_priority.cpu().numpy()}

    def load_state_dict(self, state: State) -> None:
        """Take over a saved memory. Raises Mistake where it was made with other settings."""
        mine = self.state_dict()
        for name in sorted({*mine, *state} - {"num_added"}):
            found, wanted = (describe(side.get(name)) for side in (state, mine))
            if found != wanted:
                raise Mistake(
                    f"the saved replay memory has {name} {found} where this one has {wanted};"
                    " resume with the settings it was saved with"
                )
        self.num_added = state["num_added"]
        for name, tensor in (*self.ring._asdict().items(), ("over", self.over_here)):
            tensor[: len(self)] = torch.from_numpy(state[name])
        self.max_priority = torch.tensor(state["max_priority"], device=self.device)
        if self.tree is not None:
            self.tree.fill(torch.from_numpy(state["priority"]))


class SumTree:
    """Priorities at the leaves, and above every 32 of them their sum, up to one last block of 32.

    Wide, because a level costs the same few tensor operations however wide it is."""

    def __init__(self, num_leaves: int, device: torch.device) -> None:
        self.levels: list[Tensor] = []  # [blocks * 32] float64 each, leaves first
        while not self.levels or num_leaves > 1:
            num_leaves = -(-num_leaves // 32)
            self.levels.append(torch.zeros(num_leaves * 32, dtype=torch.float64, device=device))

    def write(self, leaf: Tensor, priority: Tensor) -> None:
        """Set leaves [M] int64 to priorities [M] float64."""
        self.levels[0].index_copy_(0, leaf, priority)
        for lower, upper in pairwise(self.levels):
            leaf = leaf // 32
            upper.index_copy_(0, leaf, sums(lower.view(-1, 32).index_select(0, leaf)))

    def fill(self, priority: Tensor) -> None:
        """Set the first leaves to `priority` [M] float64 and all others to 0."""
        self.levels[0].zero_()[: len(priority)] = priority
        for lower, upper in pairwise(self.levels):
            upper[: len(lower) // 32] = sums(lower.view(-1, 32))

    def draw(self, num_draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return leaves [B] int64 drawn in proportion to their priorities, one from each B-th part
        of the total, and their priorities [B] float64."""
        device = self.levels[0].device
        share = torch.rand(num_draws, dtype=torch.float64, generator=generator)
        share = (share + torch.arange(num_draws)) / num_draws
        target = share.to(device, non_blocking=True) * sums(self.levels[-1])
        leaf = torch.zeros(num_draws, dtype=torch.int64, device=device)
        for level in reversed(self.levels):
            total = level.view(-1, 32).index_select(0, leaf).cumsum(1)  # [B, 32]
            target = torch.minimum(target, total[:, -1] * (1 - 2**-52))  # rounded, never past all
            passed = total <= target[:, None]
            target = target - (total * passed).amax(1)
            leaf = leaf * 32 + passed.sum(1)
        return leaf, self.levels[0].index_select(0, leaf)


def sums(block: Tensor) -> Tensor:
    """Add up the last axis in order, so that the same block has the same sum in any company."""
    return block.cumsum(-1)[..., -1]


def make_ring(spec: Spec, capacity: int, device: torch.device) -> Ring:
    """Return an empty ring, whose memory the system hands out as it fills. Raises Mistake where an
    observation or action is not one array of one dtype."""
    observation, action = spec.observation_space, spec.action_space
    if observation.shape is None or observation.dtype is None or action.shape is None:
        raise Mistake(f"a replay memory holds plain arrays, not {observation} and {action}")
    frame_shape = observation.shape[1:] if spec.num_stacked > 1 else observation.shape
    action_dtype = np.min_scalar_type(-spec.num_actions) if spec.num_actions else np.float32

    def empty(*shape: int, dtype: DTypeLike = np.float32) -> Tensor:
        kind = torch.from_numpy(np.empty(0, dtype)).dtype
        return torch.empty(shape, dtype=kind, device=device)

    ring = Ring(
        frame=empty(capacity + 1, *frame_shape, dtype=observation.dtype),
        action=empty(capacity, *action.shape, dtype=action_dtype),
        reward=empty(capacity),
        discount=empty(capacity),
        over=empty(capacity, dtype=np.bool_),
    )
    ring.frame[capacity] = 0
    return ring


def describe(value: int | Array | None) -> str:
    """Say what two memories must agree on: a number, or the dtype and shape of one moment."""
    return f"{value.dtype} {value.shape[1:]}" if isinstance(value, np.ndarray) else f"{value}"
