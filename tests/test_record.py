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

from rlplay import config
from rlplay.canvas import BoardCanvas
from rlplay.core import Agent, Decision, Spec, Step
from rlplay.palette import AMBER, BLUE, SNOW
from rlplay.play import play
from rlplay.record import CLIP_FRAMES, Config, record, tensorboard_image

POINTS = [0.0, 1.0, 0.0, -3.0, 10.0]
BOARDS = ("tictactoe", "connect_four", "othello:size=4", "gomoku", "hex", "breakthrough")


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


class Searcher(Agent):
    """Plays moves in turn, or any, as if a search had looked at them; sure that it will win."""

    def __init__(self, moves: list[int] | None = None, seed: int = 0, visits: bool = True) -> None:
        self.moves, self.random, self.visits = moves, np.random.default_rng(seed), visits

    def act(self, step: Step, explore: bool = True) -> Decision:
        mask = step.action_mask
        visits = np.where(mask, self.random.integers(1, 50, mask.shape), 0)
        action = visits.argmax(1) if self.moves is None else np.array([self.moves.pop(0)])
        notes = {"value": np.array([0.5], np.float32)}
        if self.visits:
            notes |= {"visits": visits, "policy": visits / visits.sum(1, keepdims=True)}
        return Decision(action, notes)


FIRST_WINS, SECOND_WINS, NOBODY_WINS = (
    [0, 3, 1, 4, 2],
    [0, 3, 1, 4, 8, 5],
    [0, 1, 2, 4, 3, 5, 7, 6, 8],
)


@pytest.mark.parametrize("name", BOARDS)
def test_move_is_drawn_where_its_stone_will_lie(name):
    game = config.world(name).rules()
    board, random, without = game.start(1), np.random.default_rng(5), 0
    for _ in range(16):
        mask, player = game.action_mask(board)[0], int(game.player(board)[0])
        before, (places, pitch) = game.draw(board), game.places(board)
        assert np.isnan(places[~mask]).all(), "an illegal move has a place"
        for action in random.permutation(np.flatnonzero(mask))[:3]:
            following = game.play(board, np.array([action]))
            if np.isnan(places[action]).any():
                assert game.action_names[action] == "pass"
                without += 1
                continue
            begin, end = (tuple(place[::-1].round().astype(int)) for place in places[action])
            after = game.draw(following)
            ink = (AMBER, BLUE)[player]
            assert np.abs(after[end].astype(int) - ink).max() < 8
            assert np.abs(before[end].astype(int) - ink).max() > 20, "the stone was there before"
            if begin != end:
                assert np.abs(before[begin].astype(int) - ink).max() < 8
                assert np.hypot(*(places[action, 1] - places[action, 0])) < 1.5 * pitch
        if game.over(following)[0]:
            break
        board = following
    assert without == 0 or "othello" in name


@pytest.mark.parametrize("name", BOARDS)
def test_share_of_visits_is_drawn_on_every_legal_move_and_nowhere_else(name):
    env = config.world(name).make(render=True)
    game, step = env.spec.model, env.reset(0)
    canvas = BoardCanvas(env.render(), env.spec, panel=True)
    agent = Searcher()
    moments = play(env, agent, step)
    for _ in range(4):
        plain = env.render().astype(int)
        canvas.place(env.render())
        moment = next(moments)
        canvas.tell(moment, 0, 0.0, 0.0)
        tall, wide, _ = plain.shape
        drawn = np.array(canvas.image)[canvas.top :][:tall, :wide].astype(int)
        changed = (np.abs(drawn - plain).max(2) > 8).nonzero()
        places, pitch = game.places(moment.step.state)
        legal = places[moment.step.action_mask[0]]
        begin, end = legal[:, 0], legal[:, 1]
        points = 6 if (begin != end).any() else 1  # a stone may move
        along = np.linspace(begin, end, points).reshape(-1, 2)
        pixels = np.stack(changed[::-1], 1)[::5]
        away = np.hypot(*(along[:, None] - pixels).transpose(2, 0, 1))
        assert away.min(0).max() < 0.5 * pitch, "something is drawn where no legal move is"
        nearest = away.min(1).reshape(points, -1).min(0)
        assert nearest.max() < 0.2 * pitch, "a legal move is not drawn"


def marked(visits: list[int], action: int, player: int = 0) -> np.ndarray:
    """Return the board of tic-tac-toe at the left of a frame, given the visits of its cells."""
    env = config.world("tictactoe").make(render=True)
    step = env.reset(0)
    if player:
        step = env.step(np.array([8]))
    canvas = BoardCanvas(env.render(), env.spec, panel=True)
    plain = np.array(canvas.image)
    moment = next(play(env, Searcher([action]), step))
    moment.decision.notes["visits"] = np.array([visits])
    canvas.tell(moment, 0, 0.0, 0.0)
    board = np.array(canvas.image)[:, : canvas.left]
    return np.where((board != plain[:, : canvas.left]).any(2, keepdims=True), board, 0)


def test_disc_is_as_large_as_the_share_of_visits_and_the_chosen_one_has_a_ring():
    board = marked([40, 20, 10, 0, 0, 0, 0, 0, 30], 8)
    unit = 148  # of 3 x 3 cells, pixels
    cells = board[36:][: 3 * unit, 36:][:, : 3 * unit].reshape(3, unit, 3, unit, 3)
    area = (cells.any(4)).sum((1, 3)).ravel()
    assert area[0] / area[1] == pytest.approx(2, rel=0.05)
    assert area[0] / area[2] == pytest.approx(4, rel=0.05)
    assert 0 < area[3] < 0.02 * area[0], "a legal move never looked at is still to be seen"
    bright = (np.abs(cells.astype(int) - SNOW).max(4) < 8).sum((1, 3)).ravel()
    assert bright[8] > 4 * bright[0], "numbers are white as well, but the ring is larger"
    assert (marked([40, 20, 10, 0, 0, 0, 0, 0, 30], 0) != board).any()


def test_discs_have_the_colour_of_the_player_who_moves():
    first, second = (marked([9] * 9, 0, player).reshape(-1, 3).astype(int) for player in (0, 1))
    warm, cold = (drawn[drawn.any(1)] for drawn in (first, second))
    assert np.median(warm[:, 0] - warm[:, 2]) > 40
    assert np.median(cold[:, 2] - cold[:, 0]) > 40


def test_film_without_panel_has_no_thoughts_and_one_without_visits_a_plain_board(tmp_path):
    env = config.world("tictactoe").make(render=True)
    width = config.world("tictactoe").rules().draw(env.reset(0).state).shape[1]
    films = {
        name: film(
            record(env, Searcher([*FIRST_WINS], visits=visits), tmp_path / name, Config(), p).path
        )
        for name, visits, p in (("seen", True, True), ("dumb", False, True), ("plain", True, False))
    }

    def difference(one: str, two: str, now: int) -> float:
        pair = (films[name][now][:, :width].astype(int) for name in (one, two))
        return np.abs(np.subtract(*pair)).mean()

    assert films["plain"][0].shape[1] == width
    for now in range(5):
        assert difference("seen", "plain", now) > 3
        assert difference("dumb", "plain", now) < 1
    assert difference("seen", "plain", 5) < 1, "the last board shows the game alone"


@pytest.mark.parametrize(("moves", "last"), [(FIRST_WINS, 1), (SECOND_WINS, -1), (NOBODY_WINS, 0)])
def test_value_over_time_is_the_first_player_s_and_ends_with_the_score(moves, last):
    env = config.world("tictactoe").make(render=True)
    step = env.reset(0)
    canvas, step_number = BoardCanvas(env.render(), env.spec, panel=True), 0
    for moment in play(env, Searcher([*moves]), step):
        canvas.tell(moment, step_number, 0.0, 0.0)
        step_number += 1
        if moment.following.done[0]:
            break
    canvas.tell(moment, step_number, float(moment.following.score[0, 0]), 0.0, "GAME OVER")
    # The agent always expects 0.5 for whoever moves.
    assert list(canvas.values) == [(0.5, -0.5)[i % 2] for i in range(len(moves))] + [last]


@pytest.mark.parametrize(
    ("moves", "score", "result"),
    [
        (FIRST_WINS, 1, "amber, moving first, wins"),
        (SECOND_WINS, -1, "blue, moving second, wins"),
        (NOBODY_WINS, 0, "a draw"),
        (FIRST_WINS[:2], 0, "undecided"),
    ],
)
def test_result_of_a_board_game_says_who_has_won(tmp_path, moves, score, result):
    env = config.world("tictactoe").make(render=True)
    settings = Config(max_steps=len(moves))
    recording = record(env, Searcher([*moves]), tmp_path / "game", settings)
    assert (recording.score, recording.result, recording.length) == (score, result, len(moves))
    assert record(Lamps(1), Script(), tmp_path / "lamps", Config()).result == "score -3"


@pytest.mark.parametrize("name", BOARDS)
def test_game_is_played_again_from_its_npz(tmp_path, name):
    env = config.world(name).make(render=True)
    game, length = (
        env.spec.model,
        record(env, Searcher(seed=3), tmp_path / "game", Config(max_steps=20)).length,
    )
    with np.load(tmp_path / "game.npz", allow_pickle=False) as numbers:
        saved = dict(numbers)
    assert saved["position"].shape == (length + 1,)
    assert saved["position"].dtype == game.dtype
    assert saved["game"] == game.name
    assert saved["action_names"].tolist() == list(game.action_names)
    for now in range(length):
        board = saved["position"][now : now + 1]
        assert saved["player"][now] == game.player(board)[0]
        assert (saved["action_mask"][now] == game.action_mask(board)[0]).all()
        following = game.play(board, saved["action"][now : now + 1])
        assert (following == saved["position"][now + 1]).all()
        assert saved["score"][now] == game.score(following)[0, 0]
    visits = saved["note_visits"]
    assert visits.shape == saved["note_policy"].shape == (length, game.num_actions)
    assert (visits.argmax(1) == saved["action"]).all()
    assert saved["note_value"].shape == (length,)


def test_games_of_other_worlds_for_several_say_whose_score_it_is(tmp_path):
    class Shared(Lamps):
        def __init__(self) -> None:
            super().__init__(3)
            self.spec = Spec(1, self.spec.observation_space, self.spec.action_space, num_players=2)

        def look(self, **fields) -> Step:
            return super().look(player=np.array([self.now % 2]), **fields)

    film_of_two = film(record(Shared(), Script(), tmp_path / "two", Config()).path)
    film_of_one = film(record(Lamps(3), Script(), tmp_path / "one", Config()).path)
    assert np.load(tmp_path / "two.npz")["player"].tolist() == [0, 1, 0]
    assert (film_of_two[0] != film_of_one[0]).any()
