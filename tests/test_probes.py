"""Linear probes find what is there, and nothing where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score

from rlplay.core import Mistake
from rlplay.perception import probes
from rlplay.perception.source import Source

NUM = 600


def play(**arrays) -> Source:
    parts = np.split(np.arange(NUM), [400, 500])
    splits = dict(zip(("train", "validation", "test"), parts, strict=True))
    arrays = {"episode": np.arange(NUM) // 50, **arrays}
    return Source(
        "planted", arrays, splits, (), ("background", "ball"), ("ball_x", "noise", "still")
    )


def values() -> np.ndarray:
    random = np.random.default_rng(0)
    columns = [random.integers(10, 30, NUM), random.integers(20, size=NUM), np.full(NUM, 7)]
    return np.stack(columns, 1).astype(np.uint8)


def test_probe_finds_a_planted_variable_and_guesses_at_noise():
    state = values()
    judge = probes.Judge(play(variables=state), 0.6)
    assert judge.names == ["ball_x", "noise"]  # `still` has no entropy
    one_hot = np.eye(40, dtype=np.float32)[state[:, 0]]
    found = judge.judge(one_hot)
    assert found["f1"]["ball_x"] == 1
    assert found["f1"]["noise"] < 0.15  # chance is 0.05
    assert found["error"]["ball_x"] < 0.2
    reduced = judge.judge(one_hot @ np.random.default_rng(1).normal(size=(40, 60)).astype("f4"), 20)
    assert reduced["features"] == 20
    assert reduced["f1"]["ball_x"] > 0.9


def test_f1_is_that_of_scikit_learn():
    random = np.random.default_rng(2)
    truth = random.integers(250, 256, 300).astype(np.uint8)
    said = np.where(random.random(300) < 0.6, truth, random.integers(248, 256, 300)).astype(
        np.uint8
    )
    weighted, macro = probes.f1(truth, said)
    assert weighted == pytest.approx(f1_score(truth, said, average="weighted"))
    assert macro == pytest.approx(f1_score(truth, said, average="macro", zero_division=0.0))


@pytest.mark.parametrize("num", [5, 60])
def test_ridge_is_that_of_scikit_learn_whichever_side_is_solved(num):
    random = np.random.default_rng(3)
    x, y = random.normal(1, 2, (30, num)), random.normal(size=(30, 2))
    solved = probes.ridge(torch.from_numpy(x), torch.from_numpy(y))
    for penalty, weight in zip(probes.PENALTIES, solved, strict=True):
        peer = Ridge(penalty).fit(x, y)
        assert np.allclose(probes.answers(torch.from_numpy(x), weight), peer.predict(x))


def test_position_is_judged_only_where_its_object_is_seen():
    state = values()
    seen = np.random.default_rng(4).random(NUM) < 0.7
    one_hot = np.eye(40, dtype=np.float32)[state[:, 0]] * seen[:, None]  # hidden, it cannot be told
    kind = np.where(seen, 1, 0)[:, None].astype(np.int64)
    everywhere = probes.Judge(play(variables=state), 0.6).judge(one_hot)
    where_seen = probes.Judge(play(variables=state, kind=kind), 0.6).judge(one_hot)
    assert where_seen["error"]["ball_x"] < 0.2 < 1 < everywhere["error"]["ball_x"]


def test_values_that_training_never_showed_are_missed_and_counted():
    state = values()
    state[550:, 0] = 200
    found = probes.Judge(play(variables=state), 0.6).judge(
        np.eye(256, dtype=np.float32)[state[:, 0]]
    )
    assert found["accuracy"]["ball_x"] == pytest.approx(0.5)


def test_frames_without_a_state_are_refused():
    with pytest.raises(Mistake, match="nothing is known"):
        probes.Judge(play(), 0.6)
    with pytest.raises(Mistake, match="entropy"):
        probes.Judge(play(variables=values()), 9.0)
