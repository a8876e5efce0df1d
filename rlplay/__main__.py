"""The command line: one verb per function. Heavy libraries are imported by the verbs that need
them, so that `rlplay --help` answers at once."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from rlplay.core import Mistake, nearest

HELP = """\
rlplay: train agents that play, watch them learn, and play against them

  rlplay train CONFIG [--settings]      train an agent; CONFIG is a path or a name such as pong/dqn
  rlplay resume [RUN] [--settings]      continue an interrupted training
  rlplay evaluate [RUN] [--settings]    score a trained agent; --json, --checkpoint best|STEPS
  rlplay record [RUN] [--settings]      film a trained agent; --checkpoint best|STEPS
  rlplay list envs|agents|configs|runs  what there is; --json
  rlplay doctor                         check this machine, and how to mend it
  rlplay tensorboard [--port PORT]      follow the trainings in a browser

RUN is `last`, the beginning of a run's name, or a path.
`rlplay train CONFIG --help` lists the settings, such as --num-steps 100000 or --agent.double;
resume, evaluate and record take the same ones. `--runs FOLDER` keeps runs elsewhere than in runs/.
"""


def main() -> None:
    sys.exit(run_verb(sys.argv[1:]))


def run_verb(words: list[str]) -> int:
    """Run a command line; return its exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    try:
        verb = VERBS.get(words[0])
        if verb is None:
            known = list(VERBS)
            raise Mistake(f"no verb {words[0]!r}{nearest(words[0], known)}; see `rlplay --help`")
        words = words[1:]
        root = Path(option(words, "--runs") or "runs")
        return verb(words, root)
    except Mistake as mistake:
        print(f"rlplay: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def train(words: list[str], root: Path) -> int:
    """Train an agent from a config."""
    from rlplay import config

    if not words or words[0].startswith("-"):
        if asks_help(words):
            return show_help()
        known = ", ".join(config.names("configs"))
        raise Mistake(f"`rlplay train` needs a config: a path, or one of {known}")
    name, *settings = words
    wants_help = asks_help(settings)
    experiment = config.load(name, [word for word in settings if word not in ("-h", "--help")])
    if wants_help:
        print(config.describe(experiment), end="")
        return 0
    quiet_threads()
    from rlplay import run
    from rlplay.train import Training

    training = Training(experiment, say)
    folder = run.create(experiment, training.env.spec, root)
    return go(training, folder)


def resume(words: list[str], root: Path) -> int:
    """Continue a run where its newest valid checkpoint stands."""
    if asks_help(words):
        return show_help()
    name = positional(words)
    quiet_threads()
    from rlplay import checkpoint, config, run
    from rlplay.train import Training

    folder = run.find(name, root)
    experiment = config.load(str(folder.folder / "config.yaml"), words)
    parts = checkpoint.newest(folder.checkpoints, say)[1]
    training = Training(experiment, say)
    training.restore(parts)
    folder.describe(experiment, training.env.spec)
    say(f"resuming {folder.name} at {training.steps:,} of {experiment.num_steps:,} agent steps")
    return go(training, folder)


def go(training, folder) -> int:  # noqa: ANN001
    folder.start(["rlplay", *sys.argv[1:]])
    say(f"run {folder.folder}")
    code = training.run(folder)
    path = shlex.quote(str(folder.folder))
    if code == 0:
        suggest(f"evaluate {path}", f"record {path}", "tensorboard")
    else:
        suggest(f"resume {path}")
    return code


def evaluate(words: list[str], root: Path) -> int:
    """Score a trained agent by the protocol in its config."""
    if asks_help(words):
        return show_help()
    as_json = flag(words, "--json")
    which, name = option(words, "--checkpoint"), positional(words)
    quiet_threads()
    from rlplay import run
    from rlplay.train import score, sentence

    folder = run.find(name, root)
    player = run.load_player(folder, which, run.print_to_stderr, words)
    result = score(player.experiment, player.agent)
    report = {
        "run": folder.name,
        "num_steps": player.num_steps,
        **result.summary(),
        "scores": result.scores.tolist(),
        "protocol": run.protocol(player.experiment, player.spec)["evaluation"],
    }
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        say(f"{folder.name} after {player.num_steps:,} agent steps")
        say(sentence(result))
        suggest(f"record {shlex.quote(name)}", "tensorboard")
    return 0


def record(words: list[str], root: Path) -> int:
    """Film an episode of a trained agent."""
    if asks_help(words):
        return show_help()
    which, name = option(words, "--checkpoint"), positional(words)
    quiet_threads()
    from rlplay import record, run

    folder = run.find(name, root)
    player = run.load_player(folder, which, run.print_to_stderr, words)
    settings = player.experiment.recording
    path = folder.recordings / f"{player.num_steps:09d}-seed{settings.seed}"
    with run.single_env(player.experiment, render=True) as env:
        recording = record.record(env, player.agent, path, settings)
    say(f"{recording.path}: score {recording.score:g} in {recording.length:,} agent steps")
    suggest(f"evaluate {shlex.quote(name)}")
    return 0


def list_(words: list[str], root: Path) -> int:
    """List what there is."""
    from rlplay import config, run

    if asks_help(words):
        return show_help()
    as_json = flag(words, "--json")
    kinds = ("envs", "agents", "configs", "runs")
    if len(words) != 1 or words[0] not in kinds:
        raise Mistake(f"`rlplay list` takes one of {', '.join(kinds)}")
    kind = words[0]
    if kind == "runs":
        rows = [run.state(folder) for folder in run.runs(root)]
    else:
        rows = [{"name": name, "about": config.about(kind, name)} for name in config.names(kind)]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    for row in rows:
        first, *rest = (str(value) for value in row.values() if value is not None)
        print(f"{first:<28} {'  '.join(rest)}".rstrip())
    if not rows:
        say(f"no runs in {root} yet")
    commands = {"configs": "train cartpole/dqn", "runs": "evaluate last"}
    suggest(commands.get(kind, "list configs"))
    return 0


def doctor(words: list[str], root: Path) -> int:
    """Check this machine."""
    from rlplay import doctor

    if asks_help(words):
        return show_help()
    if words:
        raise Mistake(f"`rlplay doctor` takes no {words[0]!r}")
    return doctor.doctor(root)


def tensorboard(words: list[str], root: Path) -> int:
    """Serve the runs on this machine only."""
    if asks_help(words):
        return show_help()
    port = option(words, "--port") or "6006"
    if words or not port.isdigit():
        raise Mistake("`rlplay tensorboard` takes --port NUMBER and nothing else")
    command = ["-m", "tensorboard.main", "--logdir", str(root), "--host", "127.0.0.1"]
    say(f"TensorBoard of {root}/ at http://127.0.0.1:{port} (Ctrl-C ends it)")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *command, "--port", port])


def asks_help(words: list[str]) -> bool:
    return "-h" in words or "--help" in words


def show_help() -> int:
    print(HELP, end="")
    return 0


def positional(words: list[str]) -> str:
    """Take the RUN off the front of `words`; `last` where it is left out."""
    return words.pop(0) if words and not words[0].startswith("-") else "last"


def flag(words: list[str], name: str) -> bool:
    """Take a switch out of `words`."""
    if name not in words:
        return False
    words.remove(name)
    return True


def option(words: list[str], name: str) -> str:
    """Take `name VALUE` or `name=VALUE` out of `words`; empty where it is not there."""
    for i, word in enumerate(words):
        if word.startswith(f"{name}="):
            del words[i]
            return word.split("=", 1)[1]
        if word == name:
            if i + 1 == len(words):
                raise Mistake(f"{name} needs a value")
            del words[i]
            return words.pop(i)
    return ""


def quiet_threads() -> None:
    """Let torch's idle threads sleep soon instead of spin, before torch is imported: a spinning one
    takes its core from the emulators, and from every other program."""
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def say(sentence: str) -> None:
    print(sentence, flush=True)


def suggest(*commands: str) -> None:
    print("next:" + "".join(f"\n  rlplay {command}" for command in commands), flush=True)


VERBS = {
    "train": train,
    "resume": resume,
    "evaluate": evaluate,
    "record": record,
    "list": list_,
    "doctor": doctor,
    "tensorboard": tensorboard,
}

if __name__ == "__main__":
    main()
