"""The command line: one verb per function. Heavy libraries are imported by the verbs that need
them, so that `rlplay --help` answers at once."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlplay.core import Mistake, NonFinite, nearest
from rlplay.words import asks_help, flag, mute, option, positional, say, suggest, table

if TYPE_CHECKING:
    from rlplay.config import Experiment, Lesson
    from rlplay.lesson import Learning
    from rlplay.run import Run
    from rlplay.train import Training

Verb = Callable[[list[str], Path], int]
"""From the words behind it and the folder of runs to an exit code."""
HELP = """\
rlplay: train agents that play, and watch them learn

  rlplay train CONFIG [--settings]      train an agent; CONFIG is a path or a name such as pong/dqn
  rlplay resume [RUN] [--settings]      continue an interrupted training
  rlplay evaluate [RUN] [--settings]    score a trained agent; --json, --checkpoint best|STEPS
  rlplay record [RUN] [--settings]      film a trained agent; --checkpoint best|STEPS
  rlplay plot [RUN...] [--settings]     draw the curves of runs; --x, --metrics, --out FOLDER
  rlplay match A B [--game GAME]        two agents or runs against each other; --games N
  rlplay ladder [RUN] [--settings]      Elo of all checkpoints of a run that plays a game
  rlplay play [GAME] [--against RUN]    play a board game yourself; --side first|second
  rlplay collect-frames GAME            frames to learn to see from; --steps N, --policy uniform|RUN
  rlplay probe RUN DATASET              what its encoder knows of the game, layer by layer; --json
  rlplay similar RUN FRAME              frames that its encoder takes for alike; --dataset, --num N
  rlplay explain [RUN] [--settings]     what it looks at, as a page; --checkpoint, --max-steps N
  rlplay list envs|agents|tasks|configs|runs  what there is; --json
  rlplay doctor                         check this machine, and how to mend it
  rlplay tensorboard [--port PORT]      follow the trainings in a browser

To begin: `rlplay train cartpole/dqn` takes a minute; `rlplay list configs` names the others.
RUN is `last`, the beginning of a run's name, or a path.
`rlplay train CONFIG --help` lists the settings, such as --num-steps 100000 or --agent.double;
resume, evaluate and record take the same ones. `--runs FOLDER` keeps runs elsewhere than in runs/.
"""


def main() -> None:
    quiet_threads()
    signal.signal(signal.SIGTERM, lambda kind, frame: sys.exit(128 + kind))
    threading.excepthook = thread_error
    sys.exit(run_verb(sys.argv[1:]))


def run_verb(words: list[str]) -> int:
    """Run a command line; return its exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    try:
        verb = VERBS.get(words[0])
        if verb is None:
            hint = nearest(words[0], list(VERBS)) or "; `rlplay --help` names them all"
            raise Mistake(f"no verb called {words[0]!r}{hint}")
        words = words[1:]
        tells_own = verb in SETTLED or (verb is train and words and words[0][:1] != "-")
        if asks_help(words) and not tells_own:
            print(HELP, end="")
            return 0
        root = Path(option(words, "--runs") or "runs")
        return verb(words, root)
    except Mistake as mistake:
        print(f"rlplay: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2
    except NonFinite as error:
        print(f"rlplay: {error}; take another checkpoint, or train anew", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        mute()
        return 1
    except OSError as error:
        if isinstance(error, PermissionError):
            print(f"rlplay: no right to use {error.filename}: {error.strerror}", file=sys.stderr)
            return 2
        if not disk_full(error):
            raise
        print(
            f"rlplay: {error.strerror}; checkpoints are whole or not there, so free some space and"
            " type `rlplay resume`",
            file=sys.stderr,
        )
        return 2


def disk_full(error: BaseException | None) -> bool:
    codes = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in codes


def thread_error(error: threading.ExceptHookArgs) -> None:
    """Say nothing of a full disk: TensorBoard's thread hands that on to whoever logs next."""
    if not disk_full(error.exc_value):
        threading.__excepthook__(error)


def train(words: list[str], root: Path) -> int:
    """Train an agent from a config."""
    from rlplay import config

    if not words or words[0].startswith("-"):
        raise Mistake(
            "`rlplay train` needs a config: a path, or a name such as cartpole/dqn;"
            " `rlplay list configs` names them all"
        )
    name, *settings = words
    wants_help = asks_help(settings)
    settings = [word for word in settings if word not in ("-h", "--help")]
    variants = config.variants(name, settings)
    experiment = variants[0].experiment if variants else config.load_any(name, settings)
    if wants_help:
        print(config.describe(experiment), end="")
        return 0
    if variants:
        from rlplay import study

        return go_through(study.create(name, settings, root), ["train", *words])
    from rlplay import run, transfer

    training = made(transfer.located(experiment, root))
    folder = run.create(training.experiment, training.spec, root)
    return go(training, folder, ["train", *words])


def made(experiment: Experiment | Lesson, begins: bool = True) -> Training | Learning:
    from rlplay.config import Lesson

    if isinstance(experiment, Lesson):
        from rlplay.lesson import Learning

        return Learning(experiment, say, begins)
    from rlplay.train import Training

    return Training(experiment, say, begins)


def resume(words: list[str], root: Path) -> int:
    """Continue a run where its newest valid checkpoint stands."""
    name = positional(words)
    from rlplay import checkpoint, run, study

    if several := study.find(name, root):
        if words:
            raise Mistake(f"a study is resumed as it was begun: leave out {words[0]}")
        return go_through(several, ["resume", name])
    folder = run.find(name, root)
    experiment = folder.experiment_any(words)
    with folder.locked():
        training = made(experiment, begins=False)  # so that memory is refused before it is taken
        training.restore(checkpoint.newest(folder.checkpoints, say)[1])
        folder.describe(experiment, training.spec)
        if training.more:
            say(f"{folder.name} is trained to its end; for more, add {training.more}")
        return go(training, folder, ["resume", name, *words])


def go(training: Training | Learning, folder: Run, command: list[str]) -> int:
    """Train in a run folder until the end or a signal; return the exit code."""
    folder.start(["rlplay", *command])
    say(f"{training.about}, in {folder.folder}")
    say(f"Ctrl-C saves and stops; `rlplay {tensorboard_of(folder)}` shows the curves")
    code = training.run(folder)
    path = shlex.quote(str(folder.folder))
    if code == 0:
        suggest(*training.verbs(path), f"plot {path}", tensorboard_of(folder))
    else:
        if code != 1:  # a signal, and not a loss that is no number
            say(f"saved at {training.where}")
        suggest(f"resume {path}")
    return code


def go_through(folder: Path, command: list[str]) -> int:
    """Train all variants of a study in its folder; return the exit code."""
    from rlplay import study

    path = shlex.quote(str(folder))
    say(f"{len(study.read(folder)['variants'])} trainings, one after the other, in {folder}")
    code = study.go(folder, say, ["rlplay", *command])
    suggest(f"resume {path}") if code else suggest(f"plot {path}", f"tensorboard --runs {path}")
    return code


def plot(words: list[str], root: Path) -> int:
    """Draw the curves of runs, or the picture of a study."""
    out, names = option(words, "--out"), []
    while words and not words[0].startswith("-"):
        names.append(words.pop(0))
    from rlplay import plot, run, settings, study

    changes = settings.parse(words)
    if len(names) == 1 and (several := study.find(names[0], root)):
        paths = study.draw(several, changes)
    else:
        runs = [run.find(name, root) for name in names or ["last"]]
        folder = Path(out) if out else runs[0].folder if len(runs) == 1 else root / "plots"
        drawn = settings.convert(plot.Config, changes, "--", "plot")
        paths = plot.draw(runs, folder, drawn)
    from torch.utils.tensorboard import SummaryWriter

    from rlplay.record import tensorboard_image

    for path in paths:
        say(str(path))
        if path.suffix == ".png":
            with SummaryWriter(str(path.parent)) as writer:
                tensorboard_image(writer, path.stem, path.read_bytes(), 0)
    return 0


def evaluate(words: list[str], root: Path) -> int:
    """Score a trained agent by the protocol in its config."""
    as_json, which = flag(words, "--json"), option(words, "--checkpoint")
    name = positional(words)
    from rlplay import accuracy, run
    from rlplay.train import score, sentence

    folder = run.find(name, root)
    if folder.is_lesson:
        return examine(folder, which, words, as_json)
    player = run.load_player(folder, which, run.print_to_stderr, words)
    result = score(player.experiment, player.agent)
    right = accuracy.perfect_moves(player, folder, which, words)
    report = {
        "run": folder.name,
        "num_steps": player.num_steps,
        **result.summary(),
        **({"perfect_moves": right} if right else {}),
        "scores": result.scores.tolist(),
        "protocol": run.protocol(player.experiment, player.spec)["evaluation"],
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        say(f"{folder.name} after {player.num_steps:,} agent steps")
        say(sentence(result))
        for who, shares in right.items():
            say(f"{who}: {accuracy.sentence(shares)}")
        suggest(f"record {shlex.quote(str(folder.folder))}", tensorboard_of(folder))
    return 0


def examine(folder: Run, which: str, words: list[str], as_json: bool) -> int:
    """Score what a run has learned of pictures on those kept for the test."""
    from rlplay import lesson, run

    learning = lesson.load(folder, which, run.print_to_stderr, *words)
    metrics = learning.examine("test")
    if as_json:
        report = {"run": folder.name, "num_updates": learning.updates, "split": "test", **metrics}
        print(json.dumps(report, indent=2))
    else:
        say(f"{folder.name} after {learning.where}")
        say(f"test: {learning.task.sentence(metrics)}")
        suggest(tensorboard_of(folder))
    return 0


def record(words: list[str], root: Path) -> int:
    """Film an episode of a trained agent."""
    which, name = option(words, "--checkpoint"), positional(words)
    from rlplay import record, run

    folder = run.find(name, root)
    player = run.load_player(folder, which, run.print_to_stderr, words)
    settings = player.experiment.recording
    folder.recordings.mkdir(exist_ok=True)
    path = folder.recordings / f"{player.num_steps:09d}-seed{settings.seed}"
    with run.single_env(player.experiment, render=True) as env:
        recording = record.record(env, player.agent, path, settings)
    say(f"{recording.path}: {recording.result} in {recording.length:,} agent steps")
    suggest(f"evaluate {shlex.quote(str(folder.folder))}")
    return 0


def match(words: list[str], root: Path) -> int:
    """Let two agents play a game against each other, and say who is stronger."""
    world, out = option(words, "--game"), option(words, "--out")
    if len(words) < 2 or words[1].startswith("-"):
        raise Mistake("`rlplay match` needs two players, such as `rlplay match last mcts`")
    names = [words.pop(0), words.pop(0)]
    if games := option(words, "--games"):
        words += ["--num-games", games]
    from rlplay import match, settings

    terms = settings.convert(match.Config, settings.parse(words), "--", "match")
    spec, (one, two) = match.seats(names, world, root)
    found = match.match(spec.model, one, two, terms)
    say(f"{names[0]} against {names[1]}, {spec.model.name}, {found.sentence()}")
    path = match.save(found, names, spec.model, Path(out or root / "matches"))
    say(f"the games are in {path}")
    return 0


def ladder(words: list[str], root: Path) -> int:
    """Rate the checkpoints of a run by games against each other and against fixed opponents."""
    name = positional(words)
    from rlplay import ladder, run, settings

    folder = run.find(name, root)
    terms = settings.convert(ladder.Config, settings.parse(words), "--", "ladder")
    for path in ladder.ladder(folder, terms, say):
        say(str(path))
    suggest(tensorboard_of(folder))
    return 0


def play(words: list[str], root: Path) -> int:
    """Play a board game against an agent, in the terminal."""
    against, side = option(words, "--against") or "last", option(words, "--side") or "first"
    sides = ("first", "second")
    if side not in sides:
        raise Mistake(f"--side must be first or second, not {side!r}{nearest(side, sides)}")
    world = words.pop(0) if words and not words[0].startswith("-") else ""
    if words:
        raise Mistake(f"`rlplay play` takes GAME, --against and --side, and no {words[0]!r}")
    from rlplay import match, person

    spec, (agent,) = match.seats([against], world, root)
    person.play(spec.model, agent, sides.index(side), input, say)
    return 0


def from_words(module: str, command: str) -> Verb:
    """Return the verb whose module knows what may be typed after it, as in `rlplay COMMAND`."""

    def verb(words: list[str], root: Path) -> int:
        found = importlib.import_module(f"rlplay.{module}")
        if not asks_help(words):
            return found.from_words(words, root)
        from rlplay import config

        print(config.usage(found.Config(), f"rlplay {command}"), end="")
        return 0

    return verb


def list_(words: list[str], root: Path) -> int:
    """List what there is."""
    from rlplay import config, run

    as_json = flag(words, "--json")
    kinds = ("envs", "agents", "tasks", "configs", "runs")
    if len(words) != 1 or words[0] not in kinds:
        hint = nearest(words[0], kinds) if words else ""
        raise Mistake(f"`rlplay list` takes one of {', '.join(kinds)}{hint}")
    kind = words[0]
    if kind == "runs":
        from rlplay import study

        rows = [run.state(folder) for folder in run.runs(root)]
        rows += [study.state(folder) for folder in study.folders(root)]
    else:
        rows = [{"name": name, "about": config.about(kind, name)} for name in config.names(kind)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    if rows:
        print(table(rows))
    else:
        say(f"no runs in {root} yet")
    if kind == "runs" and rows:
        last = shlex.quote(str(root / rows[-1]["name"]))
        is_lesson = (root / rows[-1]["name"] / "data.json").exists()
        suggest(f"evaluate {last}", *[] if is_lesson else [f"record {last}"])
    else:
        suggest("list configs" if kind in ("envs", "agents", "tasks") else "train cartpole/dqn")
    return 0


def doctor(words: list[str], root: Path) -> int:
    """Check this machine."""
    from rlplay import doctor

    if words:
        raise Mistake(f"`rlplay doctor` takes no {words[0]!r}")
    code = doctor.doctor(root)
    if code == 0:
        suggest("train cartpole/dqn", "list configs")
    return code


def tensorboard(words: list[str], root: Path) -> int:
    """Serve the runs on this machine only."""
    port = option(words, "--port") or "6006"
    if words or not port.isdigit():
        raise Mistake("`rlplay tensorboard` takes --port NUMBER and nothing else")
    command = ["-m", "tensorboard.main", "--logdir", str(root), "--host", "127.0.0.1"]
    say(f"TensorBoard of {root}/ at http://127.0.0.1:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *command, "--port", port])


def quiet_threads() -> None:
    """Let torch's idle threads sleep soon instead of spin, before torch is imported: a spinning one
    takes its core from the emulators, and from every other program."""
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def tensorboard_of(folder: Run) -> str:
    """Return the verb that shows the curves of a run beside those of its neighbours."""
    root = folder.folder.parent
    return "tensorboard" if root == Path("runs") else f"tensorboard --runs {shlex.quote(str(root))}"


VERBS: dict[str, Verb] = {
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "record": record,
    "plot": plot,
    "match": match,
    "ladder": ladder,
    "play": play,
    "collect-frames": from_words("collect", "collect-frames GAME"),
    "probe": from_words("insight.probe", "probe RUN DATASET"),
    "similar": from_words("insight.similar", "similar RUN FRAME"),
    "explain": from_words("insight.explain", "explain RUN"),
    "list": list_,
    "doctor": doctor,
    "tensorboard": tensorboard,
}
SETTLED = [VERBS[name] for name in ("collect-frames", "probe", "similar", "explain")]
"""Those whose --help tells their own settings."""

if __name__ == "__main__":
    main()
