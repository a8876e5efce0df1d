"""Laws of the replay memory, held against a model that is a plain Python list per env."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from rlplay.core import Array, Decision, Mistake, Spec, Step, Trajectory
from rlplay.replay import Batch, Replay

DISCOUNT = 0.5  # with whole rewards, every sum below is exact in float32
ATARI = Spec(8, Box(0, 255, (4, 84, 84), np.uint8), Discrete(18), num_stacked=4)


class Seen(NamedTuple):
    """One moment of one env, as the world itself showed it."""

    observation: Array
    action: int
    reward: float
    discount: float
    terminated: bool
    truncated: bool


class World:
    """N envs whose every frame is a number never seen before; they end, are cut short and lose
    lives at random, and show stacks as a real env does."""

    def __init__(self, num_envs: int, num_stacked: int, seed: int) -> None:
        frame = (num_stacked, 2) if num_stacked > 1 else (2,)
        self.spec = Spec(
            num_envs, Box(0, 2**30, frame, np.int32), Discrete(300), num_stacked=num_stacked
        )
        self.random = np.random.default_rng(seed)
        self.clock = 0
        self.reset()

    def reset(self) -> None:
        self.stacks = [self.first() for _ in range(self.spec.num_envs)]
        self.newest = [self.show(env, False, False, False) for env in range(self.spec.num_envs)]

    def first(self) -> deque[Array]:
        k = self.spec.num_stacked
        return deque([np.zeros(2, np.int32)] * (k - 1) + [self.frame()], k)

    def frame(self) -> Array:
        self.clock += 1
        return np.array([self.clock, -self.clock], np.int32)

    def show(self, env: int, terminated: bool, truncated: bool, life_lost: bool) -> Seen:
        observation = (
            np.stack(self.stacks[env]) if self.spec.num_stacked > 1 else self.stacks[env][0]
        )
        return Seen(
            observation=observation,
            action=int(self.random.integers(300)),
            reward=float(self.random.integers(-8, 9)),
            discount=float(not (terminated or life_lost)),
            terminated=terminated,
            truncated=truncated,
        )

    def play(self, num_moments: int) -> list[list[Seen]]:
        """Return T + 1 moments of N envs, the first of which ended the call before."""
        moments = [self.newest]
        for _ in range(num_moments):
            self.newest = [self.follow(env, seen) for env, seen in enumerate(self.newest)]
            moments.append(self.newest)
        return moments

    def follow(self, env: int, seen: Seen) -> Seen:
        if seen.terminated or seen.truncated:
            self.stacks[env] = self.first()
            return self.show(env, False, False, False)
        self.stacks[env].append(self.frame())
        event = self.random.random()
        return self.show(env, event < 0.12, 0.1 < event < 0.22, 0.22 < event < 0.32)


def trajectory(moments: list[list[Seen]]) -> Trajectory:
    def column(name: str, dtype: Any) -> Array:
        return np.array([[getattr(seen, name) for seen in row] for row in moments], dtype)

    reward = column("reward", np.float32)[:, :, None]
    return Trajectory(
        Step(
            observation=column("observation", np.int32),
            action_mask=np.ones((*reward.shape[:2], 300), bool),
            player=np.zeros(reward.shape[:2], np.int64),
            reward=reward,
            score=reward,
            terminated=column("terminated", bool),
            truncated=column("truncated", bool),
            discount=column("discount", np.float32),
        ),
        Decision(column("action", np.int64)[:-1], {}),
    )


class Model:
    """What a replay memory must return, told with a list. `blind` makes it forget one law."""

    def __init__(self, replay: Replay, blind: str = "") -> None:
        self.num_envs, self.k, self.n = replay.num_envs, replay.num_stacked, replay.num_steps
        self.size = replay.capacity // replay.num_envs
        self.blind = blind
        self.moments: list[list[Seen]] = []

    def add(self, moments: list[list[Seen]]) -> None:
        for row in moments[:-1]:
            if self.blind == "truncation":
                row = [seen._replace(truncated=False) for seen in row]
            if self.blind == "life loss":
                row = [seen._replace(discount=float(not seen.terminated)) for seen in row]
            self.moments.append(row)

    def cut(self) -> None:
        if self.moments and self.blind != "cut":
            self.moments[-1] = [seen._replace(truncated=True) for seen in self.moments[-1]]

    def over(self, time: int, env: int) -> bool:
        return self.moments[time][env].terminated or self.moments[time][env].truncated

    def sampleable(self) -> set[int]:
        first = max(0, len(self.moments) - self.size) + self.k - 1
        return {
            time * self.num_envs + env
            for time in range(first, len(self.moments) - self.n)
            for env in range(self.num_envs)
            if not self.over(time, env)
        }

    def transition(self, index: int) -> tuple[Array, int, float, float, Array]:
        time, env = divmod(index, self.num_envs)
        returns, discount, end = 0.0, 1.0, time
        for _ in range(self.n):
            end += 1
            returns += discount * self.moments[end][env].reward
            discount *= DISCOUNT * self.moments[end][env].discount
            if self.over(end, env):
                break
        now, then = self.moments[time][env], self.moments[end][env]
        return now.observation, now.action, returns, discount, then.observation

    def agrees(self, batch: Batch) -> bool:
        if {int(i) for i in batch.index} != self.sampleable():
            return False
        _, rows = np.unique(batch.index.numpy(), return_index=True)
        names = ("observation", "action", "returns", "discount", "next_observation")
        columns = [getattr(batch, name)[rows].numpy() for name in names]
        wanted = [self.transition(int(i)) for i in batch.index[rows]]
        return all(
            np.array_equal(column, np.array(list(values)))
            for column, values in zip(columns, zip(*wanted, strict=True), strict=True)
        )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(world: World, num_moments: int, capacity: int, **settings: Any) -> Replay:
    replay = Replay(world.spec, capacity, discount=DISCOUNT, **settings)
    replay.add(trajectory(world.play(num_moments)))
    return replay


@settings(max_examples=300, deadline=None)
@given(
    num_envs=st.integers(1, 3),
    num_stacked=st.integers(1, 4),
    num_steps=st.integers(1, 5),
    spare=st.integers(0, 12),
    prioritized=st.booleans(),
    chunks=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    seed=st.integers(0, 2**20),
)
def test_memory_returns_what_a_list_of_all_moments_says(
    num_envs: int,
    num_stacked: int,
    num_steps: int,
    spare: int,
    prioritized: bool,
    chunks: list[int],
    seed: int,
) -> None:
    world = World(num_envs, num_stacked, seed)
    capacity = num_envs * (num_steps + num_stacked + spare)
    replay = Replay(
        world.spec, capacity, discount=DISCOUNT, num_steps=num_steps, prioritized=prioritized
    )
    model, draw = Model(replay), generator(seed)
    for chunk in chunks:
        if chunk == 0:  # the world starts anew
            world.reset()
            replay.cut()
            model.cut()
        moments = world.play(3 * chunk if chunk == 9 else max(1, chunk))
        replay.add(trajectory(moments))
        model.add(moments)
        assert len(replay) == min(len(model.moments), model.size) * num_envs
        assert replay.ready == bool(model.sampleable())
        if not replay.ready:
            with pytest.raises(ValueError, match="none of them can be sampled"):
                replay.sample(1, draw)
            continue
        batch = replay.sample(1500, draw)
        assert model.agrees(batch)
        anything = torch.randint(-9, replay.num_added + 9, (16,), generator=draw)
        replay.update(anything, torch.rand(16, generator=draw) + 0.5)


@pytest.mark.parametrize("blind", ["truncation", "life loss", "cut"])
def test_a_model_that_forgets_one_law_disagrees(blind: str) -> None:
    world = World(num_envs=2, num_stacked=3, seed=0)
    replay = Replay(world.spec, 80, discount=DISCOUNT, num_steps=2)
    models = Model(replay), Model(replay, blind)
    for _ in range(2):
        moments = world.play(30)
        replay.add(trajectory(moments))
        replay.cut()
        world.reset()
        for model in models:
            model.add(moments)
            model.cut()
    batch = replay.sample(3000, generator())
    assert [model.agrees(batch) for model in models] == [True, False]


def one_episode(*, terminated: bool = False, truncated: bool = False, discount: float) -> Batch:
    """Play three moments, the last as told, then two of another episode; sample the second."""
    row = [Seen(np.full(2, t, np.int32), 0, 8.0 * t, 1.0, False, False) for t in range(6)]
    row[2] = row[2]._replace(terminated=terminated, truncated=truncated, discount=discount)
    world = World(num_envs=1, num_stacked=1, seed=0)
    replay = Replay(world.spec, 9, discount=DISCOUNT, num_steps=2)
    replay.add(trajectory([[seen] for seen in row]))
    batch = replay.sample(64, generator())
    row = int((batch.index == 1).nonzero()[0])
    return Batch(**{name: value[row] for name, value in vars(batch).items()})


def test_truncated_episode_bootstraps_from_its_own_last_observation() -> None:
    batch = one_episode(truncated=True, discount=1.0)
    assert (float(batch.returns), float(batch.discount)) == (16.0, DISCOUNT)
    assert batch.next_observation.tolist() == [2, 2]


def test_nothing_is_earned_after_termination_or_a_lost_life() -> None:
    for terminated in (True, False):
        batch = one_episode(terminated=terminated, discount=0.0)
        assert (float(batch.returns), float(batch.discount)) == (16.0, 0.0)
    batch = one_episode(discount=1.0)  # but is, where neither happened
    assert (float(batch.returns), float(batch.discount)) == (16.0 + 12.0, DISCOUNT**2)


def test_cut_ends_the_episode_at_the_newest_stored_moment() -> None:
    world = World(num_envs=1, num_stacked=2, seed=0)
    row = [[Seen(np.full((2, 2), t, np.int32), 0, 1.0, 1.0, False, False)] for t in range(1, 9)]
    batches = []
    for cuts in (False, True):
        replay = Replay(world.spec, 20, discount=DISCOUNT, num_steps=2)
        replay.cut()  # nothing is stored yet, so nothing ends
        replay.add(trajectory(row[:5]))  # moments 0..3
        if cuts:
            replay.cut()
        replay.add(trajectory(row[4:]))  # moments 4..6
        batches.append(replay.sample(256, generator()))
    whole, cut = batches
    assert set(whole.index.tolist()) == {1, 2, 3, 4}
    assert set(cut.index.tolist()) == {1, 2, 4}
    assert cut.observation[cut.index == 4][0].tolist() == [[0, 0], [5, 5]]
    assert whole.observation[whole.index == 4][0].tolist() == [[4, 4], [5, 5]]
    assert float(cut.discount[cut.index == 2][0]) == DISCOUNT
    assert float(whole.discount[whole.index == 2][0]) == DISCOUNT**2


def misfit(index: Array, share: Array) -> float:
    """Return how many standard deviations chi-square is above what fair draws give."""
    wanted = len(index) * share / share.sum()
    counted = np.bincount(index, minlength=len(share))
    assert not counted[share == 0].any()
    chosen = share > 0
    excess = ((counted - wanted)[chosen] ** 2 / wanted[chosen]).sum() - chosen.sum() + 1
    return float(excess / np.sqrt(2 * (chosen.sum() - 1)))


def test_uniform_draws_are_uniform_over_exactly_what_can_be_sampled() -> None:
    world = World(num_envs=3, num_stacked=2, seed=1)
    replay = Replay(world.spec, 120, discount=DISCOUNT)
    model, moments, draw = Model(replay), world.play(70), generator()
    replay.add(trajectory(moments))
    model.add(moments)
    share = np.zeros(replay.num_added)
    share[list(model.sampleable())] = 1
    index = torch.cat([replay.sample(32, draw).index for _ in range(600)]).numpy()
    assert misfit(index, share) < 5
    low, high = min(model.sampleable()), max(model.sampleable())
    tried = np.random.default_rng(0).integers(low, high - 3, len(index))
    biased = np.where(share[tried] > 0, tried, tried + 3)  # an end's successor twice as often
    assert share[low:high].sum() < high - low
    assert misfit(biased, share) > 5


def test_prioritized_draws_follow_the_errors_raised_to_the_exponent() -> None:
    world = World(num_envs=2, num_stacked=1, seed=2)
    replay = filled(world, 900, 1500, prioritized=True, priority_exponent=0.7)
    draw = generator()
    known = torch.unique(replay.sample(20_000, draw).index)
    error = torch.rand(len(known), generator=draw) * 3 - 1.5
    replay.update(known, error)
    share = np.zeros(replay.num_added)
    share[known.numpy()] = (error.abs().double().numpy() + 1e-6) ** 0.7
    batches = [replay.sample(32, draw, beta=0.4) for _ in range(2000)]
    index = torch.cat([batch.index for batch in batches]).numpy()
    assert misfit(index, share) < 5
    assert misfit(index, np.where(share > 0, 1.0, 0.0)) > 50
    for batch in batches[:20]:
        wanted = share[batch.index.numpy()] ** -0.4
        np.testing.assert_allclose(batch.weight.numpy(), wanted / wanted.max(), rtol=1e-5)


def test_the_last_bit_of_chance_still_finds_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = filled(World(num_envs=2, num_stacked=3, seed=2), 700, 1500, prioritized=True)
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.ones(n, dtype=torch.float64))
    batch = replay.sample(8, generator())
    newest = replay.window[1] - 1
    assert newest - 20 < batch.index[-1] <= newest
    assert torch.equal(batch.weight, torch.ones(8))


def test_new_moments_enter_with_the_highest_priority_so_far() -> None:
    world = World(num_envs=2, num_stacked=1, seed=3)
    replay = filled(world, 40, 60, prioritized=True)
    known = torch.unique(replay.sample(4000, generator()).index)
    replay.update(known, torch.where(known == known[-1], 16.0, 0.25))
    replay.add(trajectory(world.play(10)))
    batch = replay.sample(4000, generator(), beta=1.0)
    fresh = batch.index > known[-1]
    assert fresh.any()
    assert (
        batch.weight[fresh].unique().tolist() == batch.weight[batch.index == known[-1]][:1].tolist()
    )
    assert float(batch.weight[~fresh & (batch.index != known[-1])].min()) == 1.0


def test_late_errors_of_overwritten_moments_change_nothing() -> None:
    world = World(num_envs=2, num_stacked=2, seed=4)
    replay = filled(world, 20, 40, prioritized=True)
    old = replay.sample(64, generator()).index
    replay.add(trajectory(world.play(25)))
    before = replay.state_dict()["priority"].copy()
    replay.update(old, torch.full((64,), 9.0))
    assert np.array_equal(replay.state_dict()["priority"], before)
    replay.update(old + replay.capacity, torch.full((64,), 9.0))  # but those now in their slots
    assert not np.array_equal(replay.state_dict()["priority"], before)


def tensors(thing: Any) -> list[torch.Tensor]:
    if isinstance(thing, torch.Tensor):
        return [thing]
    parts = thing if isinstance(thing, list | tuple) else getattr(thing, "__dict__", {}).values()
    return [tensor for part in parts for tensor in tensors(part)]


@pytest.mark.parametrize("prioritized", [False, True])
def test_memory_takes_the_bytes_it_says(prioritized: bool) -> None:
    assert 7.0e9 < Replay.num_bytes(ATARI, 1_000_000, prioritized) < 7.5e9
    replay = Replay(ATARI, 1000, discount=0.99, prioritized=prioritized)
    taken = sum(tensor.untyped_storage().nbytes() for tensor in tensors(replay))
    assert taken == pytest.approx(Replay.num_bytes(ATARI, 1000, prioritized), rel=0.01)


@pytest.mark.parametrize("prioritized", [False, True])
@pytest.mark.parametrize("num_moments", [6, 30, 71])
def test_loaded_memory_goes_on_bitwise_like_the_one_never_saved(
    num_moments: int, prioritized: bool
) -> None:
    world = World(num_envs=2, num_stacked=3, seed=5)
    settings = {"num_steps": 2, "prioritized": prioritized}
    replay = filled(world, num_moments, 100, **settings)
    draw = generator()
    for _ in range(3):
        replay.update(replay.sample(7, draw).index, 9 * torch.rand(7, generator=draw))
    state = replay.state_dict()
    assert np.shares_memory(state["frame"], replay.ring.frame.numpy())
    assert {len(array) for name, array in state.items() if name in replay.ring._fields} == {
        min(2 * num_moments, 100)
    }
    loaded = filled(World(num_envs=2, num_stacked=3, seed=6), 60, 100, **settings)
    loaded.load_state_dict(copy.deepcopy(state))
    for _ in range(12):
        moments, seed = trajectory(world.play(5)), int(draw.initial_seed())
        samples = []
        for memory in (replay, loaded):
            memory.add(moments)
            batch = memory.sample(9, generator(seed))
            memory.update(batch.index, batch.returns / 3)
            samples.append(batch)
        for name, value in vars(samples[0]).items():
            assert torch.equal(value, getattr(samples[1], name)), name


def test_memory_refuses_what_was_saved_with_other_settings() -> None:
    world = World(num_envs=2, num_stacked=1, seed=0)
    state = filled(world, 10, 100).state_dict()
    others = [
        Replay(world.spec, 102, discount=DISCOUNT),
        Replay(world.spec, 100, discount=DISCOUNT, num_steps=3),
        Replay(world.spec, 100, discount=DISCOUNT, prioritized=True),
        Replay(World(1, 1, 0).spec, 100, discount=DISCOUNT),
        Replay(Spec(2, Box(0, 1, (3,), np.int32), Discrete(300)), 100, discount=DISCOUNT),
    ]
    for other in others:
        with pytest.raises(Mistake, match="saved replay memory has"):
            other.load_state_dict(state)
        assert len(other) == 0
    Replay(world.spec, 100, discount=DISCOUNT).load_state_dict(state)


def test_memory_too_small_to_sample_from_is_refused() -> None:
    with pytest.raises(Mistake, match="make it 56 or more"):
        Replay(ATARI, 47, discount=0.99, num_steps=3)
    Replay(ATARI, 56, discount=0.99, num_steps=3)


def test_continuous_actions_come_back_as_they_were() -> None:
    spec = Spec(2, Box(-1, 1, (3,), np.float32), Box(-1, 1, (2,), np.float32))
    random = np.random.default_rng(0)
    observation = random.random((6, 2, 3), np.float32)
    steps = [Step.at(moment, 0) for moment in observation]
    step = Step(*(np.stack(column) for column in list(zip(*steps, strict=True))[:-1]))
    action = random.random((5, 2, 2), np.float32)
    replay = Replay(spec, 20, discount=0.99)
    replay.add(Trajectory(step, Decision(action, {})))
    batch = replay.sample(50, generator())
    assert np.array_equal(batch.action.numpy(), action.reshape(-1, 2)[batch.index.numpy()])
    assert np.array_equal(
        batch.observation.numpy(), observation.reshape(-1, 3)[batch.index.numpy()]
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("prioritized", [False, True])
def test_a_seed_draws_the_same_moments_on_a_gpu_without_waiting_for_it(prioritized: bool) -> None:
    samples = []
    for device in ("cpu", "cuda"):
        world = World(num_envs=2, num_stacked=3, seed=7)
        replay = filled(world, 60, 80, num_steps=2, prioritized=prioritized, device=device)
        error = torch.arange(1.0, 65.0, device=device)
        torch.cuda.set_sync_debug_mode("error")
        try:
            replay.update(replay.sample(64, generator()).index, error)
            batch = replay.sample(64, generator(1))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        samples.append({name: value.cpu() for name, value in vars(batch).items()})
    for name, value in samples[0].items():
        torch.testing.assert_close(samples[1][name], value)
