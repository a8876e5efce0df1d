"""The laws of a checkpoint: what was saved comes back, whatever happened in between, and nothing
that lies in one is ever run."""

import errno
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from rlplay import checkpoint
from rlplay.checkpoint import Damaged, load, names, newest, prune, save
from rlplay.core import Mistake


def parts_at(step: int) -> dict[str, dict]:
    rng = np.random.Generator(np.random.PCG64(step))
    return {
        "agent": {"step": step, "rng": rng.bit_generator.state, "noise": rng.normal(size=(3, 4))},
        "weights": {"layer.weight": rng.normal(size=(4, 2)).astype(np.float32)},
    }


def assert_same(left: object, right: object) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict) and isinstance(right, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list) and isinstance(right, list):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    elif isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        assert left.tobytes() == right.tobytes()
    else:
        assert left == right or (left != left and right != right)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file of a checkpoint as an attacker would: the manifest agrees with it."""
    path.write_bytes(data)
    manifest = json.loads((path.parent / "manifest.json").read_text())
    manifest["files"][path.name] = checkpoint._entry(path)
    (path.parent / "manifest.json").write_text(json.dumps(manifest))


def test_what_was_saved_comes_back(tmp_path: Path):
    state = {
        "numbers": [0, -1, 2**200, 0.1, -0.0, math.inf, -math.inf, math.nan, True, False, None],
        "text": {"": "ünï\n\ud800", "a/b": "..", "a": {"b": [[], {}, [{"x": []}]]}},
        "rng": np.random.PCG64(7).state,
        "arrays": [
            np.arange(6, dtype=np.uint8).reshape(2, 3).T,
            np.zeros((0, 4), np.float32),
            np.array(3.5),
            np.array([math.nan, math.inf]),
            np.array(["x", "yz"]),
            np.arange(20)[::3],
            np.array([(1, 2.0)], [("move", "i4"), ("value", ">f8")]),
        ],
    }
    weights = {
        "a.b": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "num_batches": np.array(3),
        "empty": np.zeros((0, 2), np.float16),
    }
    loaded = load(save(tmp_path, "best", {"agent": state, "env": {}, "weights": weights}))
    assert_same(loaded, {"agent": state, "env": {}, "weights": weights})
    assert all(array.flags.writeable for array in loaded["weights"].values())
    assert all(array.flags.writeable for array in loaded["agent"]["arrays"])


def test_random_generator_continues_where_it_was(tmp_path: Path):
    rng = np.random.default_rng(0)
    rng.integers(3, dtype=np.uint8)
    saved = load(save(tmp_path, "1", {"agent": {"rng": rng.bit_generator.state}}))
    other = np.random.default_rng(1)
    other.bit_generator.state = saved["agent"]["rng"]
    assert rng.integers(1000, size=9).tolist() == other.integers(1000, size=9).tolist()


def test_numpy_scalars_come_back_as_python_scalars(tmp_path: Path):
    state = {"a": np.float32(0.5), "b": np.int64(-3), "c": np.bool_(True), "d": np.str_("x")}
    loaded = load(save(tmp_path, "1", {"agent": state}))
    assert_same(loaded["agent"], {"a": 0.5, "b": -3, "c": True, "d": "x"})


@pytest.mark.parametrize(
    "parts",
    [
        {"agent": {"x": np.array([None])}},
        {"agent": {"x": [{"y": np.zeros(1, [("a", object)])}]}},
        {"agent": {"x": (1, 2)}},
        {"agent": {"x": {1: 2}}},
        {"agent": {"x": {"@array": 0}}},
        {"agent": {"x": 1j}},
        {"agent": {"x": np.datetime64("2020-01-01")}},
        {"weights": {"x": np.array([None])}},
        {"weights": {"x": 1.0}},
        {"weights": {"x": {"y": np.zeros(1)}}},
    ],
)
def test_what_cannot_be_held_is_refused_before_anything_is_written(tmp_path: Path, parts: Mapping):
    with pytest.raises(TypeError):
        save(tmp_path / "checkpoints", "1", {"env": {}, **parts})
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("name", ["", ".x", "../x", "/x", "a/b", "1.aside"])
def test_name_that_is_not_a_plain_word_is_refused(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="name of a checkpoint"):
        save(tmp_path, name, {})
    with pytest.raises(ValueError, match="name of a part"):
        save(tmp_path, "1", {name or "manifest": {}})


def test_save_over_an_existing_name_replaces_all_of_it(tmp_path: Path):
    save(tmp_path, "best", {**parts_at(1), "replay": {"frames": np.zeros(9)}})
    save(tmp_path, "best", parts_at(2))
    assert_same(load(tmp_path / "best"), parts_at(2))
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_names_are_sorted_by_number_and_leave_out_best_and_temporaries(tmp_path: Path):
    assert names(tmp_path / "nowhere") == []
    for name in ["000000300", "1000000000", "000000020", "best"]:
        save(tmp_path, name, parts_at(1))
    (tmp_path / ".000000400.123").mkdir()
    assert names(tmp_path) == ["000000020", "000000300", "1000000000"]
    save(tmp_path, "000000400", parts_at(4))
    assert hidden(tmp_path) == []


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path):
    for name in ["1", "2", "3", "10", "best"]:
        save(tmp_path, name, parts_at(1))
    prune(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "3", "best"]
    prune(tmp_path, keep=5)
    assert names(tmp_path) == ["3", "10"]
    with pytest.raises(ValueError, match="at least one"):
        prune(tmp_path, keep=0)


# A process is killed with SIGKILL at its k-th call of a C function that touches files, for every k:
# a fork per k, started from one small process. The law is checked after each kill.
KILLED = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_checkpoint import assert_same, hidden, load, names, newest, parts_at, prune, save

TOUCHING = set("open write flush close fsync mkdir rename unlink rmdir scandir".split())

def naive(folder, name, parts):
    shutil.rmtree(folder / name)
    shutil.copytree(save(folder.parent / "other", name, parts), folder / name)

def survives(folder, act, before, after):
    calls = 0
    def count(frame, event, function):
        nonlocal calls
        if event == "c_call" and function.__name__ in TOUCHING:
            calls += 1
            if calls > limit:
                os.kill(os.getpid(), signal.SIGKILL)
    limit = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        before(folder)
        if not (child := os.fork()):
            sys.setprofile(count)
            act(folder)
            os._exit(0)
        finished = os.waitpid(child, 0)[1] == 0
        after(folder)
        if finished:
            return limit
        limit += 1

def announce(sentence):
    raise AssertionError(sentence)

def two(folder):
    save(folder, "1", parts_at(1))
    save(folder, "2", parts_at(2))

def one_of(folder, *steps):
    _, parts = newest(folder, announce)
    assert parts["agent"]["step"] in steps
    assert_same(parts, parts_at(parts["agent"]["step"]))
    assert names(folder)[0] == "1"
    save(folder, "4", parts_at(4))  # the next save tidies up, and loses nothing
    assert hidden(folder) == [] and newest(folder, announce)[1]["agent"]["step"] == 4
    assert load(folder / "2")["agent"]["step"] in steps

folder = Path({folder!r}) / "checkpoints"
new = survives(folder, lambda f: save(f, "3", parts_at(3)), two, lambda f: one_of(f, 2, 3))
over = survives(folder, lambda f: save(f, "2", parts_at(3)), two, lambda f: one_of(f, 2, 3))

def pruned(folder):
    assert newest(folder, announce)[1]["agent"]["step"] == 2
    for name in names(folder):
        assert_same(load(folder / name), parts_at(int(name)))
    prune(folder, 1)
    assert os.listdir(folder) == ["2"]

prunes = survives(folder, lambda f: prune(f, 1), two, pruned)
try:
    survives(folder, lambda f: naive(f, "2", parts_at(3)), two, lambda f: one_of(f, 2, 3))
except Exception as error:  # the negative control: a careless save does not pass
    print(new, over, prunes, type(error).__name__)
"""


def test_kill_at_any_call_of_a_save_or_prune_leaves_a_valid_checkpoint(tmp_path: Path):
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    new, over, prunes, careless = done.stdout.split()
    assert careless in ("AssertionError", "Damaged")
    assert int(new) > 20
    assert int(over) > int(new)
    assert int(prunes) > 8


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


FILES = ["agent.json", "agent.npz", "weights.safetensors", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("harm", [flip, truncate, extend, Path.unlink])
def test_damage_is_announced_and_the_one_before_is_taken(tmp_path: Path, file: str, harm):
    for step in (1, 2, 3):
        save(tmp_path, f"{step:09}", parts_at(step))
    said: list[str] = []
    assert newest(tmp_path, said.append)[0].name == "000000003"
    assert said == []
    harm(tmp_path / "000000003" / file)
    with pytest.raises(Damaged, match=file):
        load(tmp_path / "000000003")
    path, parts = newest(tmp_path, said.append)
    assert path.name == "000000002"
    assert_same(parts, parts_at(2))
    assert len(said) == 1
    assert "000000003 is damaged" in said[0]
    assert file in said[0]
    assert "taking the one before it" in said[0]


def test_every_single_bit_of_a_checkpoint_is_watched(tmp_path: Path):
    path = save(tmp_path, "1", {"agent": {"step": 1}, "weights": {}})
    rng = np.random.default_rng(0)
    for file in path.iterdir():
        whole = file.read_bytes()
        for bit in rng.permutation(8 * len(whole))[:300]:
            data = bytearray(whole)
            data[bit // 8] ^= 1 << bit % 8
            file.write_bytes(data)
            with pytest.raises(Damaged):
                load(path)
        file.write_bytes(whole)
    assert_same(load(path), {"agent": {"step": 1}, "weights": {}})


def test_no_sound_checkpoint_is_a_mistake_and_never_a_fresh_start(tmp_path: Path):
    said: list[str] = []
    with pytest.raises(Mistake, match="rlplay train"):
        newest(tmp_path / "nowhere", said.append)
    for step in (1, 2):
        flip(save(tmp_path, str(step), parts_at(step)) / "agent.npz")
    with pytest.raises(Mistake, match=str(tmp_path)):
        newest(tmp_path, said.append)
    assert len(said) == 2


def test_another_format_is_refused(tmp_path: Path):
    manifest = save(tmp_path, "1", parts_at(1)) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(Damaged, match="format"):
        load(tmp_path / "1")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("failing", ["mkdir", "fsync", "rename", "write"])
def test_failing_disk_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, failing: str
):
    save(tmp_path, "1", parts_at(1))
    save(tmp_path, "best", parts_at(1))
    calls = 0

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    def fail_later(source: Path, target: Path):
        nonlocal calls
        calls += 1
        return fail() if calls == 2 else os.replace(source, target)

    with monkeypatch.context() as patch:
        if failing == "write":
            patch.setattr(np, "savez", fail)
        else:
            patch.setattr(os, failing, fail_later if failing == "rename" else fail)
        with pytest.raises(Mistake, match=os.strerror(number)):
            save(tmp_path, "best", parts_at(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "best"]
    assert_same(load(tmp_path / "best"), parts_at(1))
    assert_same(newest(tmp_path, print)[1], parts_at(1))


def test_really_running_out_of_room_keeps_the_old_checkpoint(tmp_path: Path):
    code = f"""
import resource, sys, numpy
from pathlib import Path
from rlplay.checkpoint import save
from rlplay.core import Mistake
folder = Path({str(tmp_path)!r})
small = {{"agent": {{"x": numpy.zeros(10)}}}}
save(folder, "1", small)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for part in ("replay", "weights"):
    try:
        save(folder, "1", small | {{part: {{"x": numpy.zeros(100_000)}}}})
    except Mistake as mistake:
        print(mistake)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("could not be saved") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert_same(load(tmp_path / "1"), {"agent": {"x": np.zeros(10)}})


def test_folder_that_cannot_be_written_is_a_mistake(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Mistake, match="could not be saved"):
        save(tmp_path / "file" / "checkpoints", "1", parts_at(1))


class Touch:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("file", FILES)
def test_foreign_pickle_is_damage_and_never_runs(tmp_path: Path, file: str):
    marker = tmp_path / "marker"
    payload = pickle.dumps(Touch(marker))
    path = save(tmp_path, "1", parts_at(1))
    if file == "manifest.json":
        (path / file).write_bytes(payload)
    else:
        replace_file(path / file, payload)
    with pytest.raises(Damaged, match=file):
        load(path)
    assert not marker.exists()
    pickle.loads(payload)  # the negative control: the payload does work
    assert marker.exists()


def test_array_of_objects_in_an_npz_is_damage_and_never_runs(tmp_path: Path):
    marker = tmp_path / "marker"
    path = save(tmp_path, "1", {"agent": {"x": np.zeros(1)}})
    np.savez(tmp_path / "evil.npz", np.array([Touch(marker)], object))
    replace_file(path / "agent.npz", (tmp_path / "evil.npz").read_bytes())
    with pytest.raises(Damaged, match=r"agent\.npz"):
        load(path)
    np.save(tmp_path / "evil.npy", np.zeros(1))
    replace_file(path / "agent.npz", (tmp_path / "evil.npy").read_bytes())
    with pytest.raises(Damaged, match=r"agent\.npz"):
        load(path)
    assert not marker.exists()
    with np.load(tmp_path / "evil.npz", allow_pickle=True) as arrays:
        arrays["arr_0"]
    assert marker.exists()


@pytest.mark.parametrize(
    "file",
    ["../weights.safetensors", "{folder}/weights.safetensors", "weights/../../x", "..", "manifest"],
)
def test_manifest_that_points_outside_is_refused(tmp_path: Path, file: str):
    path = save(tmp_path, "1", parts_at(1))
    file = file.format(folder=tmp_path)
    outside = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file({"x": np.zeros(1)}, outside)
    manifest = {"format": 1, "files": {file: checkpoint._entry(outside)}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match=r"manifest\.json"):
        load(path)


def test_file_that_the_manifest_leaves_out_is_not_believed(tmp_path: Path):
    path = save(tmp_path, "1", parts_at(1))
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["files"]["agent.npz"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Damaged, match=r"manifest\.json"):
        load(path)
