"""The laws of the command line: what every verb says, leaves behind, and ends with."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium.envs.classic_control import CartPoleEnv
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlplay import checkpoint, config, evaluate, run
from rlplay.__main__ import SETTLED, VERBS, run_verb

TINY = """\
env: {name: gymnasium, id: CartPole-v1, num_envs: 2}
agent:
  name: dqn
  encoder: {name: mlp, hidden: [8]}
  hidden: 0
  batch_size: 8
  learning_starts: 20
  replay_size: 200
  target_every: 50
  device: cpu
num_steps: 300
log_every: 100
evaluate_every: 200
evaluation: {num_episodes: 3, num_envs: 3, max_steps: 30}
recording: {max_steps: 12}
checkpoint: {every: 100, keep: 3}
"""
PONG = """\
env: {name: atari, game: pong, num_envs: 2}
agent: {name: uniform}
num_steps: 20
log_every: 10
evaluation: {num_episodes: 1, num_envs: 1, max_steps: 5}
recording: {max_steps: 3}
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def proposed(self) -> list[list[str]]:
        """The commands that were named as the next ones."""
        _, _, after = self.out.partition("next:\n")
        return [line.split()[1:] for line in after.splitlines()]


def rlplay(*words: str | Path) -> Answer:
    """Run a command line in this process."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = run_verb([str(word) for word in words])
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A config that trains in a second; pong.yaml lies beside it."""
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    path.with_name("pong.yaml").write_text(PONG)
    return path


@pytest.fixture(scope="module")
def trained(tiny) -> tuple[Answer, Path]:
    """What a training said, and the run that it left. For looking at; `finished` is for use."""
    root = tiny.parent / "runs"
    answer = rlplay("train", tiny, "--runs", root)
    [folder] = root.iterdir()
    return answer, folder


@pytest.fixture
def finished(trained, tmp_path) -> Path:
    """A copy of the trained run, in a folder of runs of its own."""
    folder = tmp_path / "runs" / trained[1].name
    shutil.copytree(trained[1], folder)
    return folder


@pytest.fixture
def refused(tmp_path) -> Callable[..., str]:
    """Run a command that is a mistake; return the sentence with which it is refused."""

    def call(*words: str | Path) -> str:
        place = () if "--runs" in words else ("--runs", tmp_path / "runs")
        before = tree(tmp_path)
        answer = rlplay(*words, *place)
        assert tree(tmp_path) == before, "a refused command changed something"
        assert answer.code == 2
        return sentence(answer.err)

    return call


def sentence(err: str) -> str:
    """Return the one line of what was written to stderr."""
    [line] = err.splitlines()
    assert line.startswith("rlplay: ")
    assert len(line) < 500
    return line


def tree(folder: Path) -> dict[str, bytes]:
    """Return all that is in a folder, by path."""
    paths = folder.rglob("*")
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in paths}


def logged(folder: Path) -> dict[tuple[str, int], float]:
    """Return the numbers of metrics.jsonl by name and agent step."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {(name, line["step"]): line[name] for line in lines for name in line if name != "step"}


def shown(folder: Path) -> dict[tuple[str, int], float]:
    """Return the numbers that TensorBoard shows, by name and agent step."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {
        (name, event.step): event.value
        for name in events.Tags()["scalars"]
        for event in events.Scalars(name)
    }


# --- help --------------------------------------------------------------------------------------


def test_help_answers_at_once_and_imports_nothing_heavy():
    program = (
        "import sys; from rlplay.__main__ import run_verb; assert run_verb(['--help']) == 0;"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    before = os.times()
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    after = os.times()  # of the processor, so that a busy machine tells no lies
    seconds = after.children_user - before.children_user
    seconds += after.children_system - before.children_system
    modules = answer.stderr.split()
    heavy = "torch gymnasium ale_py tensorboard tyro av PIL scipy matplotlib pygame"
    assert {*heavy.split()} & {*modules} == set()
    assert "numpy" in modules  # negative control: this is where a module would be seen
    for verb in VERBS:
        assert f"rlplay {verb} " in answer.stdout
    assert seconds < 0.5


@pytest.mark.parametrize(
    "verb", [[], *([verb] for verb in VERBS)], ids=lambda verb: verb[0] if verb else "none"
)
def test_every_verb_explains_itself_and_does_nothing(verb, tmp_path):
    for flag in ("-h", "--help"):
        answer = rlplay(*verb, flag, *(["--runs", tmp_path / "runs"] if verb else []))
        assert answer.code == 0
        own = verb and VERBS[verb[0]] in SETTLED
        assert (f"usage: rlplay {verb[0]}" if own else "rlplay train CONFIG") in answer.out
    assert list(tmp_path.iterdir()) == []


def test_help_of_a_config_shows_the_settings_of_its_world_and_agent(tiny, tmp_path):
    answer = rlplay("train", tiny, "--help", "--runs", tmp_path / "runs", "--seed", "7")
    text = " ".join(answer.out.replace("│", " ").split())
    assert answer.code == 0
    for words in ("--env.id", "--agent.learning-rate", "Step size of Adam", "default: 7"):
        assert words in text
    assert "--env.game" not in text  # that is another world's
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("verb", "setting"),
    [
        ("collect-frames", "--steps"),
        ("probe", "--min-entropy"),
        ("similar", "--num"),
        ("explain", "--epsilons"),
    ],
)
def test_help_of_a_verb_with_settings_shows_them(verb, setting):
    answer = rlplay(verb, "--help")
    assert answer.code == 0
    assert setting in answer.out


# --- mistakes ----------------------------------------------------------------------------------

MISTAKES = [
    ("trian", "'train'"),
    ("xyz", "rlplay --help"),
    ("train", "cartpole/dqn"),
    ("train cartpole/dqm", "'cartpole/dqn'"),
    ("train TINY extra", "'extra'"),
    ("train TINY --runs", "--runs needs a value"),
    ("train TINY --runs --seed 1", "--runs needs a value"),
    ("train TINY --env.name atari --env.game pung", "'pong'"),
    ("train TINY --env.id CartPole-v9", "CartPole-v1"),
    ("train TINY --env.name gymnasiun", "'gymnasium'"),
    ("train TINY --agent.name dqm", "'dqn'"),
    ("train TINY --agent.learning-rat 1", "'learning_rate'"),
    ("train TINY --num-steps many", "--num-steps must be a whole number"),
    ("train TINY --agent.discount 1.5", "--agent.discount must be a number from 0 to 1"),
    ("train TINY --env.id Pendulum-v1", "needs discrete actions"),
    ("train TINY --agent.encoder.name nature", "mlp"),
    ("train TINY --agent.replay-size 10", "agent.replay_size 10"),
    ("train TINY --agent.replay-size 1000000000000", "--agent.replay-size must be"),
    ("train PONG --agent.name dqn --agent.replay-size 1000000000", "set agent.replay_size to"),
    pytest.param(
        "train TINY --agent.device cuda",
        "no CUDA GPU",
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU"),
    ),
    ("list rusn", "'runs'"),
    ("list", "envs, agents, tasks, configs, runs"),
    ("evaluate", "no runs"),
    ("record last", "no runs"),
    ("resume --num-steps 5", "no runs"),
    ("doctor pong", "'pong'"),
    ("tensorboard --port http", "--port NUMBER"),
]


@pytest.mark.parametrize(("command", "hint"), MISTAKES)
def test_mistake_gets_one_sentence_and_leaves_nothing_behind(refused, tiny, command, hint):
    paths = {"TINY": tiny, "PONG": tiny.with_name("pong.yaml")}
    assert hint in refused(*(paths.get(word, word) for word in command.split()))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (TINY.replace("num_steps", "num_step"), "'num_steps'"),
        (TINY.replace("hidden: 0", "hidden: wide"), "agent.hidden"),
        (TINY.replace("replay_size: 200", "replay_size: 0"), "agent.replay_size"),
        (TINY.replace("[8]", "!!python/object/apply:os.system [touch marker]"), "tags"),
        (TINY.replace("[8]", "[8"), "line 4"),
        ("- a list", "group of settings"),
        ("\0", "not a YAML file"),
    ],
)
def test_mistake_in_a_file_names_the_file(refused, tmp_path, monkeypatch, text, hint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    answer = refused("train", "mine.yaml")
    assert "mine.yaml" in answer
    assert hint in answer


@pytest.mark.parametrize("below", ["file", "file/runs"])
def test_runs_folder_that_cannot_be_written_is_refused(refused, tiny, tmp_path, below):
    (tmp_path / "file").write_text("")
    assert "choose another with --runs" in refused("train", tiny, "--runs", tmp_path / below)


def test_run_is_found_by_prefix_and_path_and_else_refused(refused, finished):
    root = finished.parent
    other = root / finished.name.replace("dqn", "dqn2")
    shutil.copytree(finished, other)
    hint = refused("evaluate", "cartpole")
    assert finished.name in hint
    assert other.name in hint
    assert "could be any of" in hint
    assert finished.name in refused("record", finished.name.replace("cart", "cast"))
    assert "no run called 'pong'" in refused("resume", "pong")
    for name in (finished.name, finished.name[:20], finished):
        assert json.loads(rlplay("evaluate", name, "--json", "--runs", root).out)


@pytest.mark.parametrize("verb", ["resume", "evaluate", "record"])
def test_settings_that_the_run_was_not_trained_with_are_refused(refused, finished, verb):
    for flags, hint in (
        (["--agent.name", "uniform"], "has trained dqn"),
        (["--agent.encoder.hidden", "9"], "do not fit"),
        (["--env.id", "Acrobot-v1"], "do not fit"),
        (["--agent.widht", "9"], "no setting 'widht'"),
    ):
        assert hint in refused(verb, finished, *flags)


def test_run_that_another_process_trains_is_not_resumed(refused, finished):
    with run.Run(finished).locked():
        assert "another process" in refused("resume", finished)


def test_checkpoint_that_is_not_there_is_refused_with_those_that_are(refused, finished):
    answer = refused("evaluate", finished, "--checkpoint", "7")
    assert "000000100, 000000200, 000000300, best" in answer


@pytest.mark.parametrize("verb", ["resume", "evaluate", "record"])
def test_run_without_a_sound_checkpoint_is_refused(finished, verb):
    for name in checkpoint.names(finished / "checkpoints"):
        weights = finished / "checkpoints" / name / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    before = tree(finished)
    answer = rlplay(verb, finished)
    assert answer.code == 2
    assert tree(finished) == before
    *announced, last = (answer.out + answer.err).splitlines()
    assert len(announced) == 3
    assert all("is damaged" in line for line in announced)
    assert last == sentence(last)


class Marker:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", ["weights.safetensors", "agent.npz", "agent.json", "replay.npz"])
@pytest.mark.parametrize("verb", ["resume", "evaluate"])
def test_pickle_in_a_checkpoint_is_refused_and_never_run(finished, tmp_path, verb, file):
    marker = tmp_path / "marker"
    poison = pickle.dumps(Marker(marker))
    for name in checkpoint.names(finished / "checkpoints"):
        folder = finished / "checkpoints" / name
        (folder / file).write_bytes(poison)
        manifest = json.loads((folder / "manifest.json").read_text())
        checksum = {"size": len(poison), "sha256": sha256(poison).hexdigest()}
        manifest["files"][file] = checksum  # a forger knows how to count
        (folder / "manifest.json").write_text(json.dumps(manifest))
    answer = rlplay(verb, finished)
    unread = (verb, file) == ("evaluate", "replay.npz")  # who only plays leaves the memory alone
    assert answer.code == (0 if unread else 2)
    assert "Traceback" not in answer.err
    assert not marker.exists()
    pickle.loads(poison)  # negative control
    assert marker.exists()


@pytest.mark.parametrize("missing", ["told by ale-py", "not there"])
def test_missing_rom_is_refused_with_the_command_that_repairs(
    refused, tiny, tmp_path, monkeypatch, missing
):
    if missing == "told by ale-py":
        monkeypatch.setattr("ale_py.roms.get_rom_path", lambda game: None)
    else:
        monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    answer = refused("train", tiny.with_name("pong.yaml"))
    assert "pong" in answer
    assert "pip install" in answer


def test_foreign_package_ahead_of_ours_is_refused(tiny, tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise SystemExit('the foreign one ran')")
    answer = subprocess.run(
        [sys.executable, "-m", "rlplay", "train", tiny, "--runs", tmp_path / "runs"],
        cwd=tmp_path,  # where `python -m` looks first
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 2
    assert str(tmp_path / "agents") in sentence(answer.stderr)
    assert not (tmp_path / "runs").exists()


# --- from training to film ---------------------------------------------------------------------


def test_training_leaves_a_run_folder_with_everything_in_it(trained, tiny):
    answer, folder = trained
    assert answer.code == 0
    assert answer.err == ""
    assert folder.name.startswith("cartpole-v1-dqn-s0-")
    assert {path.name for path in folder.iterdir() if "tfevents" not in path.name} == {
        *("config.yaml", "command.txt", "system.json", "env.json", "metrics.jsonl"),
        *("checkpoints", "recordings", "episodes.npz"),
    }
    assert len([path for path in folder.iterdir() if "tfevents" in path.name]) == 1
    assert config.load(str(folder / "config.yaml")) == config.load(str(tiny))
    assert (folder / "command.txt").read_text().startswith("rlplay ")
    system = json.loads((folder / "system.json").read_text())
    assert torch.__version__.startswith(system["versions"]["torch"])
    protocol = json.loads((folder / "env.json").read_text())
    assert protocol["evaluation"]["num_episodes"] == 3
    assert {path.name for path in (folder / "recordings").iterdir()} == {
        "000000300.mp4",
        "000000300.npz",
    }
    names = ["000000100", "000000200", "000000300", "best"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == names


def test_log_and_tensorboard_hold_the_same_numbers(trained):
    log, board = logged(trained[1]), shown(trained[1])
    assert board == {key: pytest.approx(value, rel=1e-6) for key, value in log.items()}
    for name in ("rollout/ep_rew_mean", "train/loss", "time/fps", "time/emulator_frames"):
        assert [step for other, step in log if other == name] == [100, 200, 300]
    assert [step for name, step in log if name == "eval/mean_reward"] == [200, 300]


def test_table_shows_the_numbers_of_the_log(trained):
    answer, folder = trained
    log = logged(folder)
    lines = [line.split() for line in answer.out.splitlines()]
    rows = [line for line in lines if line and line[0] in ("100", "200", "300")]
    assert rows[-1][0] == "300"  # the last one always, others where they are not too close
    for row in rows:
        assert float(row[2]) == round(log["rollout/ep_score_mean", int(row[0])], 1)
        assert float(row[5]) == round(log["train/loss", int(row[0])], 5)


def test_tensorboard_holds_the_clip_and_the_hyper_parameters(trained):
    events = EventAccumulator(str(trained[1])).Reload()
    [image] = events.Images("recording")
    assert image.step == 300
    clip = Image.open(io.BytesIO(image.encoded_image_string))
    assert clip.format == "GIF"
    assert getattr(clip, "n_frames", 1) > 5
    assert "_hparams_/session_start_info" in events.PluginTagToContent("hparams")


def test_proposed_commands_work_as_they_are_written(trained, finished):
    answer, folder = trained
    proposed = [
        [word.replace(str(folder), str(finished)) for word in words] for words in answer.proposed
    ]
    assert [words[0] for words in proposed] == ["evaluate", "record", "plot", "tensorboard"]
    assert str(folder.parent) in answer.proposed[-1]
    for words in proposed[:3]:
        again = rlplay(*words)
        assert (again.code, again.err) == (0, "")


def test_evaluation_as_json_is_json_and_says_by_which_protocol(finished):
    answer = rlplay("evaluate", "--json", "--runs", finished.parent)
    report = json.loads(answer.out)
    assert report["run"] == finished.name
    assert report["num_steps"] == 300
    assert report["mean"] == np.mean(report["scores"])
    assert len(report["scores"]) == report["protocol"]["num_episodes"] == 3
    # The training scored the same agent by the same protocol, and found the same.
    assert report["mean"] == logged(finished)["eval/mean_reward", 300]
    answer = rlplay("evaluate", finished, "--json", "--evaluation.num-episodes", "5")
    assert len(json.loads(answer.out)["scores"]) == 5


def test_checkpoint_can_be_chosen(finished):
    for which, steps in (("100", [100]), ("000000200", [200]), ("best", [200, 300])):
        answer = rlplay("evaluate", finished, "--json", "--checkpoint", which)
        assert json.loads(answer.out)["num_steps"] in steps


def test_recording_makes_a_film_even_where_there_was_none(finished):
    shutil.rmtree(finished / "recordings")
    answer = rlplay("record", finished, "--checkpoint", "200")
    assert answer.code == 0
    films = {path.name for path in (finished / "recordings").iterdir()}
    assert films == {"000000200-seed2000000.mp4", "000000200-seed2000000.npz"}


def test_list_tells_what_there_is(finished):
    for kind in ("envs", "agents", "tasks", "configs"):
        rows = json.loads(rlplay("list", kind, "--json").out)
        assert [row["name"] for row in rows] == config.names(kind)
        assert all(row["about"] for row in rows)
        assert all(row["name"] in rlplay("list", kind).out for row in rows)
    [row] = json.loads(rlplay("list", "runs", "--json", "--runs", finished.parent).out)
    score = logged(finished)["eval/mean_reward", 300]
    assert row == {"name": finished.name, "steps": 300, "score": score, "checkpoints": 3}
    answer = rlplay("list", "runs", "--runs", finished.parent)
    title, line = answer.out.splitlines()[:2]
    assert title.split() == ["name", "steps", "score", "checkpoints"]
    assert line.split()[:2] == [finished.name, "300"]


def test_list_of_no_runs_is_empty_and_no_mistake(tmp_path):
    answer = rlplay("list", "runs", "--runs", tmp_path / "runs")
    assert answer.code == 0
    assert "no runs" in answer.out
    assert rlplay("list", "runs", "--json", "--runs", tmp_path / "runs").out == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_resume_goes_on_in_the_same_folder(finished):
    answer = rlplay("resume", finished, "--num-steps", "500", "--evaluation.num-episodes", "2")
    assert answer.code == 0
    assert "300 to 500" in answer.out
    log = logged(finished)
    steps = [step for name, step in log if name == "time/fps"]
    assert steps == [100, 200, 300, 400, 500]
    board = shown(finished)
    assert board == {key: pytest.approx(value, rel=1e-6) for key, value in log.items()}
    assert run.Run(finished).experiment().num_steps == 500
    assert len((finished / "command.txt").read_text().splitlines()) == 2
    assert checkpoint.names(finished / "checkpoints")[-1] == "000000500"


def test_resume_of_a_run_at_its_end_says_how_to_train_on(finished):
    answer = rlplay("resume", finished)
    assert answer.code == 0
    assert "--num-steps 600" in answer.out


def test_resume_announces_a_damaged_checkpoint_and_takes_the_one_before(finished):
    weights = finished / "checkpoints" / "000000300" / "weights.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    answer = rlplay("resume", finished)
    assert answer.code == 0
    assert "checkpoint 000000300 is damaged" in answer.out
    assert "200 to 300" in answer.out
    assert checkpoint.load(finished / "checkpoints" / "000000300")
    log = logged(finished)
    assert [step for name, step in log if name == "time/fps"] == [100, 200, 300]
    assert shown(finished) == {key: pytest.approx(value, rel=1e-6) for key, value in log.items()}


def test_atari_trains_from_the_command_line_and_counts_emulator_frames(tiny, tmp_path):
    answer = rlplay("train", tiny.with_name("pong.yaml"), "--runs", tmp_path / "runs")
    assert answer.code == 0
    [folder] = (tmp_path / "runs").iterdir()
    log = logged(folder)
    assert log["time/emulator_frames", 20] == 4 * log["time/total_timesteps", 20] == 80
    assert len(list((folder / "recordings").glob("000000020.*"))) == 2
    assert json.loads((folder / "env.json").read_text())["frames_per_step"] == 4


# --- ends that nobody planned ------------------------------------------------------------------


def test_ctrl_c_in_the_final_evaluation_can_be_resumed(tiny, tmp_path, monkeypatch):
    root = tmp_path / "runs"
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "play_wave", lambda *_: interrupt())
        answer = rlplay("train", tiny, "--evaluate-every", "0", "--runs", root)
    [folder] = root.iterdir()
    assert answer.code == 130
    assert answer.proposed == [["resume", str(folder)]]
    assert "saved at 300 agent steps" in answer.out
    assert not (folder / "recordings").exists()
    assert "eval/mean_reward" not in {name for name, _ in logged(folder)}

    assert rlplay("resume", folder).code == 0
    assert [step for name, step in logged(folder) if name == "eval/mean_reward"] == [300]
    assert len(list((folder / "recordings").iterdir())) == 2


@pytest.mark.parametrize("moment", ["rlplay.record.row", "numpy.savez_compressed"])
def test_ctrl_c_in_a_recording_leaves_no_half_film(tiny, tmp_path, monkeypatch, finished, moment):
    root = tmp_path / "others"
    films = tree(finished / "recordings")
    # As in a process of its own: libraries that other tests have loaded may listen to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patched:
        patched.setattr(moment, lambda *_, **__: interrupt())
        answer = rlplay("train", tiny, "--runs", root)
        again = rlplay("record", finished)
    [folder] = root.iterdir()
    assert answer.code == again.code == 130
    assert answer.proposed == [["resume", str(folder)]]
    assert list((folder / "recordings").iterdir()) == []
    assert tree(finished / "recordings") == films


def interrupt() -> None:
    """Feel a Ctrl-C, here and now."""
    signal.raise_signal(signal.SIGINT)
    pytest.fail("the signal was not heard")


SLEEPER = """\
import pathlib, time
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Sleeper(CartPoleEnv):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps == 20:
            pathlib.Path("asleep").touch()
            time.sleep(600)
        return super().step(action)

gymnasium.register("Sleeper-v0", entry_point=Sleeper)
"""


@pytest.fixture
def start(tiny, tmp_path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an endless training, as a process group of its own that ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def call(*flags: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "rlplay", "train", tiny, "--num-steps", "100000000", *flags],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield call
    for process in started:
        with process, suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def assert_nobody_left(process: subprocess.Popen[str]) -> None:
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def wait_for(process: subprocess.Popen[str], happened: Callable[[], object]) -> None:
    """Wait until something has happened, while a process runs."""
    until = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it did not happen within two minutes"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_the_training_and_leaves_no_process(start, tmp_path, kind):
    process = start("--checkpoint.every", "100000000")
    wait_for(process, lambda: list(tmp_path.glob("runs/*/checkpoints/best/manifest.json")))
    process.send_signal(kind)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + kind
    assert err == ""
    assert_nobody_left(process)
    [folder] = (tmp_path / "runs").iterdir()
    [name] = checkpoint.names(folder / "checkpoints")
    assert checkpoint.load(folder / "checkpoints" / name)["train"]["steps"] == int(name) >= 200
    assert f"saved at {int(name):,} agent steps" in out
    assert Answer(0, out, err).proposed == [["resume", f"runs/{folder.name}"]]
    assert not list(folder.rglob(".*"))


def test_second_ctrl_c_ends_at_once(start, tmp_path):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    process = start("--env.id", "sleeper:Sleeper-v0")
    wait_for(process, (tmp_path / "asleep").exists)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # the first one waits for the step to end
        process.wait(timeout=1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert_nobody_left(process)


def test_loss_that_is_no_number_ends_with_1_and_says_where_its_batch_is(
    tiny, tmp_path, monkeypatch
):
    step = CartPoleEnv.step
    seen = iter(range(10_000))

    def poisoned(self, action):
        observation, _, *rest = step(self, action)
        return observation, np.nan if next(seen) > 150 else 1.0, *rest

    monkeypatch.setattr(CartPoleEnv, "step", poisoned)
    answer = rlplay("train", tiny, "--runs", tmp_path / "runs")
    [folder] = (tmp_path / "runs").iterdir()
    assert answer.code == 1
    assert str(folder / "nonfinite_batch.npz") in answer.out
    assert "Traceback" not in answer.out + answer.err
    [name] = checkpoint.names(folder / "checkpoints")
    weights = checkpoint.load(folder / "checkpoints" / name)["weights"]
    assert all(np.isfinite(array).all() for array in weights.values())


def test_full_disk_is_said_in_one_sentence_and_checkpoints_stay(tiny, tmp_path, monkeypatch):
    write = run.Log.write

    def full(self, metrics, step):
        if step > 200:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, metrics, step)

    monkeypatch.setattr(run.Log, "write", full)
    answer = rlplay("train", tiny, "--runs", tmp_path / "runs")
    assert answer.code == 2
    assert "No space left" in sentence(answer.err)
    [folder] = (tmp_path / "runs").iterdir()
    assert checkpoint.newest(folder / "checkpoints", pytest.fail)[0].name == "000000200"
    # Negative control: what is not the disk's fault is a bug, and keeps its traceback.
    monkeypatch.setattr(run.Log, "write", lambda *_: os.stat("/nowhere"))
    with pytest.raises(FileNotFoundError):
        rlplay("train", tiny, "--runs", tmp_path / "runs")


def test_training_goes_on_when_the_reader_of_its_table_has_gone(tiny, tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as deaf:
        monkeypatch.setattr(sys, "stdout", deaf)
        assert run_verb(["train", str(tiny), "--runs", str(tmp_path)]) == 0
    [folder] = tmp_path.iterdir()
    assert checkpoint.names(folder / "checkpoints")[-1] == "000000300"
