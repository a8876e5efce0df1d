"""The recorder of frames and its datasets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlplay import __main__ as command_line
from rlplay import collect, config, run
from rlplay.core import Mistake
from rlplay.perception import frames
from rlplay.perception.frames import NO_ACTION, Frames, split

SHORT = collect.Config(steps=70, max_steps=24, chunk=20, seed=3)  # whole episodes have 25 moments


def quiet(sentence: str) -> None:
    """Say nothing."""


def recorded(folder: Path, game: str = "pong", **settings) -> Frames:
    terms = collect.Config(**{**vars(SHORT), "out": str(folder), **settings})
    return collect.collect(game, terms, Path("nowhere"), quiet)


@pytest.fixture(scope="module")
def pong(tmp_path_factory) -> Frames:
    return recorded(tmp_path_factory.mktemp("data") / "pong")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def copy(pong: Frames, folder: Path) -> Path:
    folder.mkdir()
    for name, data in contents(pong.folder).items():
        (folder / name).write_bytes(data)
    return folder


def test_same_seed_same_bytes_and_another_seed_others(pong, tmp_path):
    recorded(tmp_path / "again")
    recorded(tmp_path / "other", seed=4)
    assert contents(tmp_path / "again") == contents(pong.folder)
    assert contents(tmp_path / "other") != contents(pong.folder)


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_a_killed_recording_goes_on_to_the_same_bytes(pong, tmp_path, monkeypatch, killed_after):
    append = frames.Manifest.append

    def killed(manifest, folder, screens, moments):
        if len(manifest.chunks) == killed_after:  # the worst moment: files without a manifest
            frames.write_array(folder / f"screens-{killed_after:05d}.npy", screens[:3])
            raise KeyboardInterrupt
        append(manifest, folder, screens, moments)

    monkeypatch.setattr(frames.Manifest, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path / "pong")
    monkeypatch.setattr(frames.Manifest, "append", append)
    if killed_after:
        assert len(Frames(tmp_path / "pong")) == 20 * killed_after
    recorded(tmp_path / "pong")
    assert contents(tmp_path / "pong") == contents(pong.folder)


def test_more_steps_continue_the_same_play(pong, tmp_path):
    folder = tmp_path / "pong"
    recorded(folder, steps=33)
    more = recorded(folder)
    assert len(more) == 70
    assert np.array_equal(more.moments, pong.moments)
    every = np.arange(70)
    assert np.array_equal(more.screens(every), pong.screens(every))
    before = contents(folder)
    recorded(folder, steps=50)  # has them already
    assert contents(folder) == before


def test_frames_are_what_the_emulator_showed_and_earned(pong):
    """A second recording by hand: the emulator with the seeds and actions of the dataset."""
    atari = config.plugin("envs", "atari")
    ale = atari.load_rom("pong")
    ale.setFloat("repeat_action_probability", 0.25)
    actions = ale.getMinimalActionSet()
    for episode in range(3):
        numbers = np.flatnonzero(pong.moments["episode"] == episode)
        seed, idle = np.random.default_rng([3, episode]).integers([2**31 - 1, 30])
        ale.setInt("random_seed", int(seed))
        ale.loadROM(atari.roms.get_rom_path("pong"))
        ale.reset_game()
        for _ in range(idle):
            ale.act(actions[0])
        reward = 0
        for number, picture in zip(numbers, pong.pictures(numbers), strict=True):
            moment = pong.moments[number]
            assert np.array_equal(picture, ale.getScreenRGB().transpose(2, 0, 1))
            assert np.array_equal(moment["ram"], ale.getRAM())
            assert moment["reward"] == reward
            if moment["action"] == NO_ACTION:
                break
            reward = sum(ale.act(actions[moment["action"]]) for _ in range(4))


def test_episodes_end_without_an_action_and_begin_without_a_reward(pong):
    episode, action = pong.moments["episode"], pong.moments["action"]
    last = np.flatnonzero(np.diff(episode))
    assert episode.tolist() == [i // 25 for i in range(70)]
    assert np.flatnonzero(action == NO_ACTION).tolist() == last.tolist() == [24, 49]
    assert not pong.moments["terminated"].any()  # they were cut short
    assert (pong.moments["reward"][last + 1] == 0).all()


def test_a_finished_game_is_terminated(tmp_path):
    """Skiing down the side takes a while; a game of Pong at 60 emulator frames a step does not."""
    game = recorded(tmp_path / "pong", frame_skip=60, max_steps=200, steps=120, chunk=200)
    ends = np.flatnonzero(game.moments["terminated"])
    assert len(ends) >= 1
    assert (game.moments["action"][ends] == NO_ACTION).all()
    first = game.moments["reward"][: ends[0] + 1]
    assert max(-first.sum(), first.sum()) > 10


def test_labels_are_read_from_the_dataset(pong):
    index = [3, 60, 21]
    masks, objects = pong.masks(index), [pong.objects(number) for number in index]
    assert masks.shape == (3, 210, 160)
    for mask, things in zip(masks, objects, strict=True):
        assert (mask > 0).sum() == sum(int(thing.mask.sum()) for thing in things)
    variables = pong.variables(index)
    names = list(pong.labels.VARIABLES)
    assert variables[:, names.index("player_y")].tolist() == pong.moments["ram"][index, 51].tolist()


def test_a_trained_agent_is_recorded_in_lock_step(tmp_path, monkeypatch):
    """An agent of a run plays, and the RAM beside its frames is that of its own game."""
    experiment = config.load(
        "pong/dqn", ["--agent.name=uniform", "--env.fire-start", "--env.full-action-space"]
    )

    def load_player(found, which, announce, settings):
        laid = config.load("pong/dqn", [*typed, *settings])
        with run.single_env(laid) as env:
            agent = laid.agent.make(env.spec, 0)
            return run.Player(agent, laid, env.spec, 123)

    typed = ["--agent.name=uniform", "--env.fire-start", "--env.full-action-space"]
    found = run.Run(tmp_path / "some-run")
    monkeypatch.setattr(found, "experiment", lambda settings=(): experiment)
    monkeypatch.setattr(run, "find", lambda name, root: found)
    monkeypatch.setattr(run, "load_player", load_player)
    data = recorded(tmp_path / "data", policy="some", steps=60)
    assert data.protocol["policy"] == "some-run at 123 agent steps"
    assert len(data.protocol["action_names"]) == 18
    assert data.moments["action"][data.moments["action"] != NO_ACTION].max() > 5
    more = recorded(tmp_path / "data", policy="some", steps=70)
    assert more.moments["episode"][60:].tolist() == [3] * 10  # an episode of its own
    with pytest.raises(Mistake, match="plays pong, not the Atari game breakout"):
        recorded(tmp_path / "breakout", "breakout", policy="some")


def test_emulators_that_come_apart_are_found_out(tmp_path, monkeypatch):
    experiment = config.load("pong/dqn", ["--agent.name=uniform"])
    with run.single_env(experiment, render=True) as env:
        emulator = collect.Emulator("pong", SHORT)
        player = run.Player(experiment.agent.make(env.spec, 0), experiment, env.spec, 0)
        policy = collect.Trained(emulator, SHORT, player, env)
        assert len(list(collect.moments(policy, 0, 30))) == 31
        monkeypatch.setattr(emulator, "step", lambda action: 0.0)
        with pytest.raises(RuntimeError, match="come apart"):
            list(collect.moments(policy, 0, 30))


def test_a_chunk_cut_short_is_refused_in_one_sentence(pong, tmp_path):
    folder = copy(pong, tmp_path / "pong")
    path = folder / "screens-00001.npy"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(Mistake, match=r"screens-00001.npy has \d+ of \d+ bytes: remove"):
        Frames(folder)
    path.unlink()
    with pytest.raises(Mistake, match=r"screens-00001.npy is missing"):
        Frames(folder)


@pytest.mark.parametrize("kind", ["screens", "moments"])
def test_a_changed_byte_is_found_when_it_is_read(pong, tmp_path, kind):
    folder = copy(pong, tmp_path / "pong")
    path = folder / f"{kind}-00002.npy"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    opened = Frames(folder)
    opened.screens([0, 39])  # the other chunks are whole
    with pytest.raises(Mistake, match=f"{kind}-00002.npy does not have its checksum"):
        opened.screens([45]) if kind == "screens" else opened.moments


def test_a_damaged_or_foreign_manifest_is_refused(pong, tmp_path):
    folder = copy(pong, tmp_path / "pong")
    for text in ("{", "[]", '{"format": 1, "x": 2}', "{}"):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(Mistake, match=r"manifest.json cannot be read"):
            Frames(folder)
    manifest = json.loads((pong.folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(Mistake, match="another version"):
        Frames(folder)
    with pytest.raises(Mistake, match=r"no frames in .*; type `rlplay collect-frames GAME"):
        Frames(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunks": "abc"},
        {"chunks": [{}]},
        {"protocol": None},
        {"protocol": {"game": "pong", "action_names": ["noop"], "screen": None}},
        {"protocol": {"action_names": ["noop"], "screen": [210, 160]}},
        {"palette": {"x": "000000"}},
        {"palette": {"0": "zz"}},
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_refused(pong, tmp_path, wrong):
    folder = copy(pong, tmp_path / "pong")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | wrong))
    with pytest.raises(Mistake, match=r"manifest.json cannot be read: remove the folder"):
        Frames(folder)
    with pytest.raises(Mistake, match=r"manifest.json cannot be read: remove the folder"):
        recorded(folder)


def test_a_manifest_of_other_lengths_than_its_files_is_refused(pong, tmp_path):
    folder = copy(pong, tmp_path / "pong")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["chunks"][0]["num_moments"] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    opened = Frames(folder)
    for look in (lambda: opened.moments, lambda: opened.screens([0])):
        with pytest.raises(Mistake, match=r"-00000\.npy does not hold what the manifest says"):
            look()


def test_two_processes_do_not_record_into_one_folder(pong, tmp_path):
    folder = copy(pong, tmp_path / "pong")
    before = contents(folder)
    with (
        run.alone(folder, "it is used"),
        pytest.raises(Mistake, match="pong is being recorded by another process; stop that first"),
    ):
        recorded(folder, steps=80)
    assert contents(folder) == before
    assert len(recorded(folder, steps=80)) == 80


def test_a_dataset_is_not_continued_otherwise_than_it_was_begun(pong):
    with pytest.raises(Mistake, match="was recorded with seed 3, not 4: name another folder"):
        recorded(pong.folder, seed=4)
    with pytest.raises(Mistake, match="was recorded with game 'pong', not 'breakout'"):
        recorded(pong.folder, "breakout")


def test_moments_are_taken_in_any_order_and_outside_ones_refused(pong):
    index = np.array([69, 0, 20, 19, 20])
    screens = pong.screens(index)
    assert np.array_equal(screens, pong.screens(np.arange(70))[index])
    with pytest.raises(IndexError):
        pong.screens([70])
    assert pong.pictures([]).shape == (0, 3, 210, 160)


def test_episodes_stay_whole_in_a_split():
    episode = np.repeat(np.arange(20), np.random.default_rng(0).integers(5, 50, 20))
    parts = split(episode, validation=0.1, test=0.2)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(episode)))
    owners = [set(episode[index]) for index in parts.values()]
    assert not owners[0] & owners[1]
    assert not owners[0] & owners[2]
    assert not owners[1] & owners[2]
    assert 0.1 < len(parts["test"]) / len(episode) < 0.35
    again = split(episode, validation=0.1, test=0.2)
    assert all(np.array_equal(parts[name], again[name]) for name in parts)
    other = split(episode, validation=0.1, test=0.2, seed=1)
    assert not np.array_equal(parts["test"], other["test"])


def test_three_episodes_make_three_splits_and_two_none():
    parts = split(np.array([0, 0, 1, 1, 1, 2]))
    assert {name: len(index) > 0 for name, index in parts.items()} == {
        "train": True,
        "validation": True,
        "test": True,
    }
    with pytest.raises(Mistake, match="2 recorded episodes cannot be split"):
        split(np.array([0, 0, 1]))


def test_the_verb_records_and_says_what_was_wrong(tmp_path, capsys):
    words = ["collect-frames", "pong", "--steps", "12", "--out", str(tmp_path / "d")]
    assert command_line.run_verb(words) == 0
    assert "12 frames of 1 episodes of pong" in capsys.readouterr().out
    assert len(Frames(tmp_path / "d")) == 12
    for wrong, sentence in (
        (["collect-frames"], "needs a game"),
        (["collect-frames", "pongg"], "no Atari game called 'pongg'; did you mean 'pong'"),
        (["collect-frames", "pong", "--stepz", "3"], "steps"),
        (["collect-frames", "pong", "--steps", "0"], "steps"),
        (["collect-frames", "pong", "--policy", "gone", "--runs", str(tmp_path)], "no runs in"),
        (["collect-frames", "pong", "--out", "/proc/nowhere"], "cannot write to /proc/nowhere"),
    ):
        assert command_line.run_verb(wrong) == 2
        assert sentence in capsys.readouterr().err
