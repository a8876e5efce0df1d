"""A recording shows every moment, keeps every number, and appears complete or not at all."""

from __future__ import annotations

import gc
import weakref
from io import BytesIO
from itertools import pairwise

import av
import gymnasium
import numpy as np
import pytest
from PIL import Image, ImageSequence

from rlplay.core import Agent, Decision, Spec, Step
from rlplay.record import CLIP_FRAMES, Config, record, tensorboard_image

POINTS = [0.0, 1.0, 0.0, -3.0, 10.0]


class Lamps:
    """A world of odd size (37 x 51) whose picture says where it stands; action a earns a points."""

    def __init__(self, length: int = 12, num_actions: int = 5, shape=(37, 51, 3), num_envs=1):
        space = gymnasium.spaces.Box(0, 1, (1,))
        actions = gymnasium.spaces.Discrete(num_actions)
        self.spec = Spec(num_envs, space, actions, frame_rate=12.5)
        self.length, self.now, self.shape = length, 0, shape
        self.alive, self.most_alive = 0, 0

    def reset(self, seed: int) -> Step:
        self.now, self.seed = 0, seed
        return self.look()

    def step(self, action: np.ndarray) -> Step:
        self.now += 1
        points = np.array([[POINTS[action[0] % 5]]], np.float32)
        return self.look(
            score=points, reward=np.sign(points), terminated=np.array([self.now == self.length])
        )

    def look(self, **fields) -> Step:
        observation = np.full((1, 1), self.now, np.float32)
        return Step.at(observation, self.spec.num_actions, **fields)

    def picture(self, now: int) -> np.ndarray:
        picture = np.full(self.shape, (30, 60, 160), np.uint8)
        left, width = self.shape[1] * (3 + now % 40) // 51, self.shape[1] * 6 // 51
        picture[4:-7, left : left + width] = (230, 170, 40)
        return picture

    def render(self) -> np.ndarray:
        picture = self.picture(self.now)
        self.alive += 1
        self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(picture, self.forget)
        return picture

    def forget(self) -> None:
        self.alive -= 1

    def state_dict(self):
        return {}

    def load_state_dict(self, state) -> Step:
        return self.look()

    def close(self) -> None: ...


class Script(Agent):
    """Takes the actions in turn, and gives the same two arrays again and again as its notes."""

    def __init__(self, num_actions: int = 5, breaks_at: int = -1, error=RuntimeError) -> None:
        self.num_actions, self.breaks_at, self.error, self.now = num_actions, breaks_at, error, 0
        self.notes = {"q_values": np.zeros((1, num_actions), np.float32), "value": np.zeros(1)}

    def act(self, step: Step, explore: bool = True) -> Decision:
        assert not explore
        if self.now == self.breaks_at:
            raise self.error("the agent broke")
        self.notes["q_values"][:] = np.sin(self.now + np.arange(self.num_actions))
        self.notes["value"][:] = self.now
        self.now += 1
        return Decision(np.array([(self.now * 3) % self.num_actions]), self.notes)


def film(path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def clip_pictures(gif: bytes) -> list[np.ndarray]:
    pictures = ImageSequence.Iterator(Image.open(BytesIO(gif)))
    return [np.array(picture.convert("RGB"), int) for picture in pictures]


def test_film_plays_in_a_browser_and_shows_every_moment_with_the_last(tmp_path):
    recording = record(Lamps(12), Script(), tmp_path / "game", Config())
    assert recording.path == tmp_path / "game.mp4"
    with av.open(str(recording.path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.pix_fmt == "yuv420p"
        assert stream.average_rate == 12.5
        assert stream.width % 2 == 0
        assert stream.height % 2 == 0
        assert stream.height >= 400
    head = recording.path.read_bytes()
    assert head.index(b"moov") < head.index(b"mdat"), "a browser would wait for the whole file"
    assert len(film(recording.path)) == 13


@pytest.mark.parametrize("panel", [True, False])
def test_each_frame_is_the_picture_of_its_moment(tmp_path, panel):
    env = Lamps(12)
    frames = film(record(env, Script(), tmp_path / "game", Config(), panel).path)

    def difference(frame: np.ndarray, picture: np.ndarray) -> float:
        zoom = round(frame.shape[0] / 37 - 0.5)
        large = picture.repeat(zoom, 0).repeat(zoom, 1).astype(float)
        top = (frame.shape[0] - large.shape[0]) // 2
        return np.abs(frame[top:, : large.shape[1]][: large.shape[0]] - large).mean()

    for now, frame in enumerate(frames):
        assert difference(frame, env.picture(now)) < 3
        assert difference(frame, env.picture(now + 2)) > 6, "the test would not see a late picture"


def test_panel_shows_what_the_agent_thinks(tmp_path):
    frames = film(record(Lamps(12), Script(), tmp_path / "with", Config()).path)
    plain = film(record(Lamps(12), Script(), tmp_path / "without", Config(), panel=False).path)
    width = plain[0].shape[1]
    assert frames[0].shape[1] > width + 200
    changes = [np.abs(a[:, width:].astype(int) - b[:, width:]).mean() for a, b in pairwise(frames)]
    assert min(changes) > 0.5


def test_numbers_are_exactly_those_of_the_episode(tmp_path):
    recording = record(Lamps(12), Script(), tmp_path / "game", Config(seed=7))
    with np.load(tmp_path / "game.npz", allow_pickle=False) as numbers:
        saved = dict(numbers)
    action = np.arange(3, 39, 3) % 5
    score = np.array(POINTS, np.float32)[action]
    assert set(saved) == {
        *("action", "reward", "score", "terminated", "truncated"),
        *("note_q_values", "note_value", "seed", "frame_rate"),
    }
    np.testing.assert_array_equal(saved["action"], action)
    np.testing.assert_array_equal(saved["score"], score)
    np.testing.assert_array_equal(saved["reward"], np.sign(score))
    np.testing.assert_array_equal(saved["terminated"], np.arange(12) == 11)
    assert not saved["truncated"].any()
    # The agent reuses its arrays: a recording that kept them uncopied would repeat the last one.
    np.testing.assert_array_equal(saved["note_value"], np.arange(12))
    assert saved["note_q_values"].shape == (12, 5)
    assert (saved["seed"], saved["frame_rate"]) == (7, 12.5)
    assert (recording.score, recording.length) == (score.sum(), 12)


def test_recording_is_cut_after_max_steps(tmp_path):
    recording = record(Lamps(50), Script(), tmp_path / "game", Config(max_steps=8))
    assert recording.length == 8
    assert len(film(recording.path)) == 9
    assert not np.load(tmp_path / "game.npz")["terminated"].any()


@pytest.mark.parametrize("breaks_at", [0, 5, 150])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_interruption_leaves_nothing_behind_and_the_old_recording_whole(tmp_path, breaks_at, error):
    with pytest.raises(error, match="the agent broke"):
        record(Lamps(200), Script(breaks_at=breaks_at, error=error), tmp_path / "game", Config())
    assert list(tmp_path.iterdir()) == []
    whole = record(Lamps(), Script(), tmp_path / "game", Config()).path.read_bytes()
    with pytest.raises(error, match="the agent broke"):
        record(Lamps(200), Script(breaks_at=breaks_at, error=error), tmp_path / "game", Config())
    assert {file.name for file in tmp_path.iterdir()} == {"game.mp4", "game.npz"}
    assert (tmp_path / "game.mp4").read_bytes() == whole


def test_nothing_carries_its_final_name_before_it_is_complete(tmp_path):
    seen = []

    class Spy(Script):
        def act(self, step: Step, explore: bool = True) -> Decision:
            seen.append({file.name for file in tmp_path.iterdir()})
            return super().act(step, explore)

    record(Lamps(200), Spy(), tmp_path / "game", Config())
    assert seen[0] == set()
    assert seen[150] == seen[-1] == {".game.mp4"}, "the film is streamed to disk while it grows"


def test_pictures_are_not_held(tmp_path):
    gc.collect()
    env = Lamps(300)
    recording = record(env, Script(), tmp_path / "game", Config())
    assert env.most_alive < 10
    held = [env.render() for _ in range(20)]
    assert env.most_alive >= len(held), "the test would not see held pictures"
    assert CLIP_FRAMES / 2 <= len(clip_pictures(recording.clip_gif)) <= CLIP_FRAMES + 1


def test_clip_runs_from_the_first_picture_to_the_last(tmp_path):
    env = Lamps(190, shape=(500, 400, 3))
    gif = record(env, Script(), tmp_path / "game", Config()).clip_gif
    assert Image.open(BytesIO(gif)).info["loop"] == 0
    pictures = clip_pictures(gif)
    for picture, now in ((pictures[0], 0), (pictures[-1], 190)):
        small = np.array(Image.fromarray(env.picture(now)).reduce(3), int)
        assert small.shape[0] <= 210
        assert np.abs(picture - small).mean() < 2
    assert np.abs(pictures[0] - small).mean() > 2, "the test would not see a wrong picture"


def test_tensorboard_really_holds_the_clip(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    gif = record(Lamps(20), Script(), tmp_path / "game", Config()).clip_gif
    with SummaryWriter(str(tmp_path / "events")) as writer:
        tensorboard_image(writer, "recording/clip", gif, step=1234)
    events = EventAccumulator(str(tmp_path / "events")).Reload()
    (shown,) = events.Images("recording/clip")
    assert shown.step == 1234
    assert (shown.width, shown.height) == (51, 37)
    assert shown.encoded_image_string.startswith(b"GIF89a")
    assert len(clip_pictures(shown.encoded_image_string)) == 21


@pytest.mark.parametrize("num_actions", [1, 2, 18, 300])
def test_any_number_of_actions_fits(tmp_path, num_actions):
    record(Lamps(3, num_actions), Script(num_actions), tmp_path / "game", Config())


def test_agent_without_notes_can_be_recorded(tmp_path):
    class Silent(Script):
        def act(self, step: Step, explore: bool = True) -> Decision:
            return super().act(step, explore)._replace(notes={})

    assert record(Lamps(3), Silent(), tmp_path / "game", Config()).length == 3


def test_masked_actions_and_policies_are_drawn(tmp_path):
    class Masked(Lamps):
        def look(self, **fields) -> Step:
            return super().look(action_mask=np.array([[True, True, False, True, False]]), **fields)

    class Player(Script):
        def act(self, step: Step, explore: bool = True) -> Decision:
            policy = np.array([[0.25, 0.75, -np.inf, 0.0, np.nan]])
            return Decision(np.array([1]), {"policy": policy})

    assert record(Masked(3), Player(), tmp_path / "game", Config()).length == 3


def test_several_envs_a_changing_picture_and_a_pickle_are_refused(tmp_path):
    class Growing(Lamps):
        def picture(self, now: int) -> np.ndarray:
            return np.zeros((37 + now, 51, 3), np.uint8)

    class Hoarder(Script):
        def act(self, step: Step, explore: bool = True) -> Decision:
            return super().act(step, explore)._replace(notes={"x": np.array([{}], object)})

    with pytest.raises(ValueError, match="one env can be recorded at a time, got 2"):
        record(Lamps(num_envs=2), Script(), tmp_path / "game", Config())
    with pytest.raises(ValueError, match="picture was"):
        record(Growing(), Script(), tmp_path / "game", Config())
    with pytest.raises(ValueError, match="Object arrays"):
        record(Lamps(), Hoarder(), tmp_path / "game", Config())
    assert list(tmp_path.iterdir()) == []
