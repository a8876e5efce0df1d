"""Laws of rlplay/perception/recorded.py: recorded play as examples, from scratch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlplay import collect
from rlplay.core import Mistake
from rlplay.perception import data
from rlplay.perception.frames import NO_ACTION, Frames
from rlplay.perception.source import SPLITS, Source

TERMS = collect.Config(steps=100, max_steps=24, chunk=40, seed=3)  # whole episodes have 25 moments


def recorded(folder: Path, game: str, **settings) -> Frames:
    terms = replace(TERMS, out=str(folder), **settings)
    return collect.collect(game, terms, Path("nowhere"), lambda sentence: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with a recording of Pong and one of Space Invaders, of four episodes each."""
    folder = tmp_path_factory.mktemp("datasets")
    recorded(folder / "pong", "pong")
    recorded(folder / "space_invaders", "space_invaders")
    return folder


@pytest.fixture(scope="module")
def pong(folder) -> Frames:
    return Frames(folder / "pong")


def made(folder: Path, **settings) -> Source:
    return data.Config("frames", str(folder), **settings).make()


EVERY = np.arange(100)


def test_picture_is_what_the_emulator_showed(folder, pong):
    shown = made(folder / "pong").arrays["picture"]
    assert shown.shape == (100, 3, 210, 160)
    index = np.array([99, 0, 40, 39, 40])
    assert np.array_equal(shown[index], pong.pictures(index))


def small(picture: np.ndarray, size: int) -> np.ndarray:
    """Return a frame [3, H, W] as an agent sees it, by PIL alone."""
    grey = np.round(np.tensordot([0.299, 0.587, 0.114], picture.astype(float), 1)).astype(np.uint8)
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))


def test_stacked_pictures_are_the_last_moments_and_never_of_another_episode(folder, pong):
    shown = made(folder / "pong", size=42, grey=True, num_stacked=4).arrays["picture"]
    assert shown.shape == (100, 4, 42, 42)
    episode = pong.moments["episode"]
    singles = [small(picture, 42).astype(int) for picture in pong.pictures(EVERY)]
    for number in EVERY:
        for depth, plane in enumerate(shown[[number]][0]):
            before = number - 3 + depth
            whole = before >= 0 and episode[before] == episode[number]
            expected = singles[before] if whole else np.zeros((42, 42))
            assert np.abs(plane - expected).max() <= 1  # rounding
    first = np.flatnonzero(np.diff(episode)) + 1
    assert len(first) == 3
    assert not shown[first][:, :3].any()
    assert shown[first][:, 3].any((1, 2)).all()


def test_colours_and_full_size_stack_alike(folder, pong):
    shown = made(folder / "pong", num_stacked=2).arrays["picture"]
    assert shown.shape == (100, 6, 210, 160)
    one, two = shown[[30]][0, :3], shown[[30]][0, 3:]
    assert np.array_equal(one, pong.pictures([29])[0])
    assert np.array_equal(two, pong.pictures([30])[0])


def test_episodes_stay_whole_and_every_dataset_is_in_each_split(folder):
    source = made(folder)
    episode, game = np.asarray(source.arrays["episode"]), np.asarray(source.arrays["label"])
    owners = [set(episode[source.splits[name]]) for name in SPLITS]
    assert sorted(number for owner in owners for number in owner) == list(range(8))
    for name in SPLITS:
        assert set(game[source.splits[name]]) == {0, 1}
    everything = np.concatenate([source.splits[name] for name in SPLITS])
    assert sorted(everything) == list(range(200))


def test_several_games_are_told_apart_by_their_label(folder, pong):
    source = made(folder)
    assert source.classes == ("pong", "space_invaders")
    assert np.asarray(source.arrays["label"]).tolist() == [0] * 100 + [1] * 100
    assert set(source.arrays) == {"picture", "episode", "label"}
    picture = source.arrays["picture"]
    both = picture[np.array([150, 20])]
    assert np.array_equal(both[1], pong.pictures([20])[0])
    assert np.array_equal(both[0], Frames(folder / "space_invaders").pictures([50])[0])


def test_label_is_the_action_taken_next_and_last_moments_have_none(folder, pong):
    source = made(folder / "pong")
    assert source.classes == tuple(pong.protocol["action_names"])
    used = np.sort(np.concatenate([source.splits[name] for name in SPLITS]))
    action = pong.moments["action"]
    assert used.tolist() == np.flatnonzero(action != NO_ACTION).tolist()
    assert len(used) == 96
    assert np.array_equal(np.asarray(source.arrays["label"])[used], action[used])


def test_variables_are_those_of_the_ram(folder, pong):
    source = made(folder / "pong")
    ball = np.asarray(source.arrays["variables"])[:, source.variables.index("ball_x")]
    assert np.array_equal(ball, pong.moments["ram"][:, 49])
    assert source.places == dict.fromkeys(source.variables[:6], 1.0)
    assert made(folder / "space_invaders").places["shot_y"] == 2


def test_labels_of_places_in_full_size_are_those_of_the_frames(folder):
    frames, source = Frames(folder / "space_invaders"), made(folder / "space_invaders")
    index = np.array([99, 3, 50])
    assert np.array_equal(source.arrays["mask"][index], frames.masks(index))
    boxes, kinds = source.arrays["boxes"][index], source.arrays["kind"][index]
    for number, box, kind in zip(index, boxes, kinds, strict=True):
        things = frames.objects(int(number))
        assert boxes.shape[1] == kinds.shape[1] >= len(things)
        assert box[: len(things)].tolist() == [list(thing.box) for thing in things]
        named = [source.kinds[number] for number in kind[: len(things)]]
        assert named == [thing.kind for thing in things]
        assert not kind[len(things) :].any()
        assert not box[len(things) :].any()


@pytest.mark.parametrize("game", ["pong", "space_invaders"])
@pytest.mark.parametrize("size", [84, 42])
def test_small_masks_and_boxes_keep_every_object(folder, game, size):
    """In its box, up to a pixel, every object of the full size has pixels of its kind, unless the
    next object in the list covers them."""
    index = np.arange(0, 100, 7)
    large, view = made(folder / game), made(folder / game, size=size, grey=True)
    masks, boxes = view.arrays["mask"][index], view.arrays["boxes"][index]
    full, kinds = large.arrays["boxes"][index], view.arrays["kind"][index]
    assert masks.shape[1:] == view.shape[1:] == (size, size)
    np.testing.assert_allclose(boxes, full * np.tile([size / 160, size / 210], 2), rtol=1e-5)
    kept = lost = 0
    for mask, things, of in zip(masks, boxes, kinds, strict=True):
        allowed = np.zeros((size, size), bool)
        for (left, top, right, bottom), kind in zip(things, of, strict=True):
            if kind:
                x, y = int(left), int(top)
                area = np.s_[max(y - 1, 0) : int(bottom) + 2, max(x - 1, 0) : int(right) + 2]
                allowed[area] = True
                found = (mask[area] == kind).any()
                kept, lost = kept + found, lost + (not found)
        assert not mask[~allowed].any()  # and nothing lies elsewhere
    assert kept > 50
    assert lost <= 0.01 * kept


def test_nothing_but_what_is_required_is_in_a_batch(folder):
    source = made(folder / "pong")
    assert set(source.take(EVERY[:2])) == {"picture"}
    source.require("mask", "segment")
    source.require("variables", "classify")
    taken = source.take(EVERY[:2])
    assert {name: array.dtype.name for name, array in taken.items()} == {
        "picture": "uint8",
        "mask": "uint8",
        "variables": "uint8",
    }
    with pytest.raises(Mistake, match="learns from the mask of every picture"):
        made(folder).require("mask", "segment")


def test_screens_of_other_sizes_are_refused_together(folder, tmp_path):
    for name in ("pong", "other"):
        (tmp_path / name).mkdir()
        for file in (folder / "pong").iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    assert made(tmp_path).shape == (3, 210, 160)
    path = tmp_path / "other" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["protocol"]["screen"] = [250, 160]
    path.write_text(json.dumps(manifest))
    with pytest.raises(Mistake, match="screens of several sizes"):
        made(tmp_path)


def test_no_recording_or_one_cut_short_is_one_sentence(folder, tmp_path):
    with pytest.raises(Mistake, match=r"no recorded frames in .*set data.folder"):
        made(tmp_path)
    for file in (folder / "pong").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    chunk = tmp_path / "screens-00001.npy"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    shown = made(tmp_path).arrays["picture"]
    assert shown[np.array([0])].any()  # of another chunk
    with pytest.raises(Mistake, match=r"screens-00001.npy does not have its checksum"):
        shown[np.array([50])]
    chunk.unlink()
    with pytest.raises(Mistake, match=r"screens-00001.npy is missing"):
        made(tmp_path)
