"""Laws of rlplay/lesson.py: an ended training goes on as if nothing had happened, the best is kept,
what is not there cannot be learned, and the verbs work for tasks as they do for agents."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlplay import checkpoint, config, run
from rlplay.__main__ import run_verb
from rlplay.config import Lesson
from rlplay.core import Mistake, State
from rlplay.lesson import Learning
from rlplay.perception.data import Config as Data

TINY = """
data: {name: digits, test: 0.8}
task:
  name: classify
  encoder: {name: small, width: 0.25}
  hidden: 0
  dropout: 0.3
epochs: 3
batch_size: 64
learning_rate: 3e-3
decay: {name: cosine, warmup: 0.1}
log_every: 2
num_drawn: 4
device: cpu
"""
AUTOENCODE = ["--task.name=autoencode", "--task.encoder.name=small", "--task.kind=variational"]
PARTS = {
    "dropout and batch norm": [],
    "augmentation": ["--augmentation.shift=0.1", "--augmentation.noise=0.1"],
    "weight decay, bfloat16": ["--weight-decay=0.1", "--precision=bfloat16"],
    "variational": AUTOENCODE,
}


class Killed(BaseException):
    """What a process feels of a kill -9."""


class Session(Learning):
    """A training that is killed, or told to end, after update `last`, or sees a script of
    validations instead of its own."""

    last = -1
    kills = True
    script: tuple[float, ...] = ()

    def __init__(self, lesson: Lesson) -> None:
        self.said: list[str] = []
        super().__init__(lesson, self.said.append)

    def update(self, batch: Any) -> dict[str, float]:
        metrics = super().update(batch)
        if self.updates + 1 == self.last:
            if self.kills:
                raise Killed
            self.interrupt.signal = 2
        return metrics

    def examine(self, split: str) -> dict[str, float]:
        found = super().examine(split)
        if self.script and split == "validation":
            found["goal"] = self.script[self.examined]
        return found


@pytest.fixture
def lesson(tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "tiny.yaml").write_text(TINY)
    return lambda *flags: config.load_any(str(tmp_path / "tiny.yaml"), flags)


def start(lesson: Any, root: Path, **changes: Any) -> Session:
    session = Session(lesson)
    vars(session).update(changes)
    session.folder = run.create(lesson, session.spec, root)
    return session


def resumed(session: Session) -> Session:
    again = Session(session.lesson)
    again.folder = session.folder
    again.restore(checkpoint.newest(again.folder.checkpoints, pytest.fail)[1])
    return again


def end(session: Session) -> dict[str, State]:
    """Return the newest checkpoint of a session, without what depends on the clock."""
    parts = checkpoint.newest(session.folder.checkpoints, pytest.fail)[1]
    parts["train"] = {k: v for k, v in parts["train"].items() if k != "seconds"}
    return parts


def log(session: Session) -> list[dict[str, float]]:
    """Return the log of a session, without what depends on the clock."""
    lines = run.read_lines(session.folder.folder / "metrics.jsonl")
    return [{k: v for k, v in line.items() if not k.startswith("time/")} for line in lines]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return np.array_equal(one, two)


@pytest.mark.parametrize("flags", PARTS.values(), ids=PARTS)
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(lesson, tmp_path, flags):
    if any("augmentation" in flag for flag in flags):
        pytest.importorskip("torchvision")
    whole = start(lesson(*flags), tmp_path)
    assert whole.run(whole.folder) == 0
    stopped = start(lesson(*flags), tmp_path, last=7, kills=False)
    assert stopped.run(stopped.folder) == 130  # in the middle of an epoch, and saved there
    assert stopped.updates == 7
    assert stopped.updates % stopped.per_epoch
    again = resumed(stopped)
    again.last, again.kills = again.updates + 4, True
    with pytest.raises(Killed):  # and killed in another, so that it goes on from an older state
        again.run(again.folder)
    final = resumed(again)
    assert final.run(final.folder) == 0
    assert same(end(final), end(whole))
    assert log(final) == log(whole)


def test_ctrl_c_before_the_first_update_saves_the_start(lesson, tmp_path, monkeypatch):
    session, opened = start(lesson(), tmp_path), run.Log

    def interrupted(*given):
        signal.raise_signal(signal.SIGINT)
        return opened(*given)

    monkeypatch.setattr(run, "Log", interrupted)
    assert session.run(session.folder) == 130
    assert resumed(session).updates == 0


def test_another_seed_trains_another_network(lesson, tmp_path):
    one, two = (start(lesson(f"--seed={seed}"), tmp_path) for seed in (0, 1))
    for session in (one, two):
        session.run(session.folder)
    assert not same(end(one)["weights"], end(two)["weights"])
    assert same(one.source.splits, two.source.splits)  # and is tested on the same pictures


def test_early_stopping_stops_and_keeps_the_best(lesson, tmp_path):
    script = (0.5, 0.7, 0.6, 0.65, 0.9)
    session = start(lesson("--epochs=5", "--patience=2"), tmp_path, script=script)
    assert session.run(session.folder) == 0
    assert session.examined == 4
    assert "stopping early" in " ".join(session.said)
    best = checkpoint.load(session.folder.checkpoints / "best")
    assert best["train"]["updates"] == 2 * session.per_epoch
    assert same(best["weights"], session.optimizer.weights())  # which were then tested
    patient = start(lesson("--epochs=5", "--patience=3"), tmp_path, script=script)
    assert patient.run(patient.folder) == 0
    assert patient.examined == 5


def test_less_is_better_where_the_task_says_so(lesson, tmp_path):
    session = start(lesson(*AUTOENCODE), tmp_path, script=(0.5, 0.3, 0.4))
    assert session.run(session.folder) == 0
    best = checkpoint.load(session.folder.checkpoints / "best")
    assert best["train"]["updates"] == 2 * session.per_epoch


def test_learning_rate_follows_its_decay(lesson, tmp_path):
    session = start(lesson("--log-every=1"), tmp_path)
    session.run(session.folder)
    rates = [line["train/learning_rate"] for line in log(session) if "train/loss" in line]
    num = 3 * session.per_epoch
    wanted = [3e-3 * session.lesson.decay(update / num) for update in range(num)]
    assert rates == pytest.approx(wanted)


def test_shuffled_labels_do_not_help_on_held_out_pictures(lesson, tmp_path, monkeypatch):
    flags = ("--data.test=0.5", "--epochs=8", "--task.encoder.width=0.5", "--num-drawn=0")
    make = Data.make

    def shuffled(data: Data, rules: Any = None) -> Any:
        source = make(data)
        random = np.random.default_rng(0)
        source.arrays["label"][:] = random.permutation(source.arrays["label"])
        return source

    accuracies = []
    for change in (make, shuffled):
        monkeypatch.setattr(Data, "make", change)
        session = start(lesson(*flags), tmp_path)
        session.run(session.folder)
        accuracies.append(log(session)[-1]["test/accuracy"])
    learned, chance = accuracies
    assert learned > 0.93
    assert 0.06 < chance < 0.15  # of 898 pictures; 10% +- 3 standard deviations


def test_every_epoch_sees_every_picture_once_in_another_order(lesson):
    learning = Session(lesson("--batch-size=16"))
    first, second = learning.order(0), learning.order(1)
    assert len(set(first)) == len(first) == learning.per_epoch * 16 > len(second) - 16
    assert list(first) != list(second)
    assert np.array_equal(first, Session(lesson("--batch-size=16")).order(0))


def test_verbs_work_for_a_task(tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(TINY)
    where = ["--runs", str(tmp_path / "runs")]
    assert run_verb(["train", str(tmp_path / "tiny.yaml"), "--epochs", "1", *where]) == 0
    assert "of" in capsys.readouterr().out
    folder = next((tmp_path / "runs").iterdir())
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "data.json", "metrics.jsonl"}
    assert any((folder / "pictures").glob("validation-predictions-*.png"))
    assert run_verb(["resume", "last", "--epochs", "2", *where]) == 0
    capsys.readouterr()
    assert run_verb(["evaluate", "--json", *where]) == 0
    report = json.loads(capsys.readouterr().out)
    last = run.read_lines(folder / "metrics.jsonl")[-1]
    assert report["accuracy"] == last["test/accuracy"]
    assert run_verb(["plot", *where]) == 0
    assert run_verb(["list", "runs", *where]) == 0
    assert f"{report['accuracy']:.4f}" in capsys.readouterr().out
    assert run_verb(["train", str(tmp_path / "tiny.yaml"), "--help"]) == 0
    assert "--task.dropout" in capsys.readouterr().out
    for verb in ("record", "ladder"):
        assert run_verb([verb, "last", *where]) == 2
        assert "sees but does not play" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--task.name=clasify"], "did you mean 'classify'"),
        (["--env.name=atari"], "with a task there is no env"),
        (["--task.encoder.name=resnet19"], "did you mean 'resnet18'"),
        (["--data.name=digit"], "did you mean 'digits'"),
        (["--task.encoder.name=vgg11"], "at least 32 pixels a side, not 8x8"),
        (["--data.test=0"], "the split 'test'"),
        (["--data.name=mnist", "--data.no-fetch"], "mnist is not in 'data'"),
    ],
)
def test_a_mistake_is_one_clear_sentence(lesson, flags, words):
    if "--data.name=mnist" in flags:
        pytest.importorskip("torchvision")
    with pytest.raises(Mistake) as caught:
        Session(lesson(*flags))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_run_is_not_taken_over_by_another_network_or_data(lesson, tmp_path):
    session = start(lesson("--epochs=1"), tmp_path)
    session.run(session.folder)
    parts = checkpoint.newest(session.folder.checkpoints, pytest.fail)[1]
    with pytest.raises(Mistake, match="an epoch had"):
        Session(lesson("--batch-size=32")).restore(parts)
    with pytest.raises(Mistake, match="do not fit this network"):
        Session(lesson("--task.encoder.width=0.5")).restore(parts)
    with pytest.raises(Mistake, match="cannot take over"):
        session.folder.experiment_any(["--task.name=autoencode"])


def test_pictures_of_other_channels_are_refused(lesson, tmp_path, monkeypatch):
    session = start(lesson("--epochs=1"), tmp_path)
    session.run(session.folder)
    make = Data.make

    def coloured(data: Data, rules: Any = None) -> Any:
        source = make(data)
        source.arrays["picture"] = source.arrays["picture"].repeat(3, axis=1)
        return source

    monkeypatch.setattr(Data, "make", coloured)
    with pytest.raises(Mistake, match="do not fit this network") as caught:
        resumed(session)
    assert "(4, 1, 3, 3)" not in str(caught.value) or "(4, 3, 3, 3)" in str(caught.value)


def test_loss_that_is_no_number_ends_the_training_and_keeps_its_batch(lesson, tmp_path):
    session = start(lesson(), tmp_path)
    next(session.task.parameters()).data.fill_(np.nan)
    assert session.run(session.folder) == 1
    with np.load(session.folder.folder / "nonfinite_batch.npz") as batch:
        assert batch["picture"].shape == (64, 1, 8, 8)
    shutil.rmtree(session.folder.folder)
