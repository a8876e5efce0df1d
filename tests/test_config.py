"""A YAML file and flags become one checked Experiment, and every mistake gets one sentence."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml

from rlplay import config, settings
from rlplay.config import Experiment, load
from rlplay.core import Mistake, Range

CARTPOLE = """
env: {name: gymnasium, id: CartPole-v1, num_envs: 4}
agent:
  name: dqn
  learning_rate: 1e-3
  encoder: {name: mlp, hidden: [32, 32]}
num_steps: 20_000
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write text to the config x.yaml in the working directory."""
    monkeypatch.chdir(tmp_path)
    return lambda text: (tmp_path / "x.yaml").write_text(text, "utf-8")


@pytest.fixture
def cartpole(write) -> Any:
    """Load CARTPOLE with flags written as on a command line."""
    write(CARTPOLE)
    return lambda flags="": load("x.yaml", flags.split())


def refusal(flags: list[str] | None = None, name: str = "x.yaml") -> str:
    """Return the sentence with which a config is refused."""
    with pytest.raises(Mistake) as caught:
        load(name, flags or [])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


# What is read.


def test_file_sets_what_it_names_and_leaves_the_rest_at_its_default(cartpole):
    experiment = cartpole()
    assert type(experiment) is Experiment
    assert experiment.agent.learning_rate == 1e-3
    assert experiment.agent.encoder.hidden == (32, 32)
    assert experiment.num_steps == 20_000
    assert experiment.agent.discount == type(experiment.agent)().discount
    assert experiment.seed == 0


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        ("--agent.learning-rate 3e-4", "agent.learning_rate", 3e-4),
        ("--agent.learning_rate=3e-4", "agent.learning_rate", 3e-4),
        ("--agent.learning-rate 1", "agent.learning_rate", 1.0),
        ("--num-steps 1e6", "num_steps", 1_000_000),
        ("--num-steps 5 --seed 3 --num-steps 7", "num_steps", 7),
        ("--agent.double", "agent.double", True),
        ("--agent.double --agent.no-double", "agent.double", False),
        ("--agent.double false", "agent.double", False),
        ("--agent.encoder.hidden 16", "agent.encoder.hidden", (16,)),
        ("--agent.encoder.hidden 16 8 4", "agent.encoder.hidden", (16, 8, 4)),
        ("--agent.encoder.hidden [16,8]", "agent.encoder.hidden", (16, 8)),
        ("--agent.encoder.hidden [16]", "agent.encoder.hidden", (16,)),
        ("--agent.encoder.hidden", "agent.encoder.hidden", ()),
        ("--env.id 2048", "env.id", "2048"),
        ("--env.options.map_name 8x8", "env.options", {"map_name": "8x8"}),
        ("--env.options map_name 8x8 size 3", "env.options", {"map_name": "8x8", "size": 3}),
    ],
)
def test_flag_overrides_the_file(cartpole, flags, path, value):
    found = cartpole(flags)
    for name in path.split("."):
        found = getattr(found, name)
    assert (found, type(found)) == (value, type(value))
    assert cartpole(flags).env.num_envs == 4  # and leaves its neighbours alone


def test_flag_adds_to_free_keys_of_the_file(write):
    write("env: {name: gymnasium, options: {a: 1, b: no}}\nagent: {name: uniform}")
    options: Any = load("x.yaml", ["--env.options.a", "2.5"]).env
    assert options.options == {"a": 2.5, "b": "no"}


def test_another_agent_starts_from_its_own_defaults(cartpole):
    experiment = cartpole("--agent.name uniform")
    assert settings.to_dict(experiment.agent) == {"name": "uniform"}
    assert experiment.env.num_envs == 4
    assert cartpole("--agent.name dqn").agent.learning_rate == 1e-3  # the same agent keeps them


def test_numbers_are_read_as_people_write_them(write):
    write("env: {name: gymnasium, num_envs: 1_0}\nagent: {name: dqn, learning_rate: 1e-4}")
    experiment: Any = load("x.yaml")
    assert experiment.agent.learning_rate == 0.0001
    assert experiment.env.num_envs == 10


def test_short_name_is_a_config_of_this_repository():
    assert "cartpole/dqn" in config.names("configs")
    assert load("cartpole/dqn") == load(str(config.HOME / "configs" / "cartpole" / "dqn.yaml"))


# What is written.


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--agent.encoder.hidden --agent.double --agent.learning-rate 1e-7 --seed 2147483647",
        "--agent.max-grad-norm inf --evaluation.epsilon 0.05 --recording.every 0",
        "--env.options.a 1e6 --env.options.b 2.0 --env.options.c none --env.options.d true",
        "--agent.name uniform",
    ],
)
def test_load_of_dump_is_the_same_experiment(cartpole, write, flags):
    experiment = cartpole(flags)
    write(config.dump(experiment))
    assert load("x.yaml") == experiment
    assert config.dump(load("x.yaml")) == config.dump(experiment)


@pytest.mark.parametrize(
    "text",
    ["1e6", "1_0", "no", "null", "~", "true", ".inf", "", "a: b", "- x\n\n y", "ü'\"#", "=", "<<"],
)
def test_any_text_survives_the_file(cartpole, write, text):
    experiment = cartpole()
    options = {"key": text, text: 1.5}
    env = dataclasses.replace(experiment.env, id=text, options=options)
    write(config.dump(dataclasses.replace(experiment, env=env)))
    again: Any = load("x.yaml").env
    assert (again.id, again.options) == (text, options)


def test_dump_keeps_the_order_of_the_fields(cartpole):
    assert list(settings.to_dict(cartpole())) == [f.name for f in dataclasses.fields(Experiment)]
    assert config.dump(cartpole()).startswith("env:\n  name: gymnasium\n  id: CartPole-v1\n")
    assert "hidden: [32, 32]\n" in config.dump(cartpole())


# What is refused.

FLAG_MISTAKES = {
    "--agent.learning-rate fast": "--agent.learning-rate must be a number from 0 to 1, not 'fast'",
    "--agent.learning-rate 2": "--agent.learning-rate must be a number from 0 to 1, not '2'",
    "--agent.learning-rate nan": "--agent.learning-rate must be a number from 0 to 1, not 'nan'",
    "--agent.learning-rate": "--agent.learning-rate must be a number from 0 to 1, not empty",
    "--agent.learning-rate 1 2": "--agent.learning-rate must be a number from 0 to 1, not '1 2'",
    "--agent.learnin-rate 1": (
        "--agent.learnin-rate: the dqn agent has no setting 'learnin_rate'; "
        "did you mean 'learning_rate'"
    ),
    "--learning-rate 1": (
        "--learning-rate: a config has no setting 'learning_rate'; "
        "did you mean 'agent.learning_rate'?"
    ),
    "--agent.encoder.naem mlp": (
        "--agent.encoder.naem: agent.encoder has no setting 'naem'; did you mean 'name'?"
    ),
    "--env.numenvs 3": "--env.numenvs: the gymnasium env has no setting 'numenvs'",
    "--agent.no-duble": "--agent.no-duble: the dqn agent has no setting 'duble'",
    "--agent.double maybe": "--agent.double must be true or false, not 'maybe'",
    "--agent.double 1": "--agent.double must be true or false, not '1'",
    "--num-steps 3.0": "--num-steps must be a whole number of at least 1, not '3.0'",
    "--num-steps true": "--num-steps must be a whole number of at least 1, not 'true'",
    "--num-steps 0": "--num-steps must be a whole number of at least 1, not '0'",
    "--no-num-steps": "--no-num-steps must be a whole number of at least 1, not 'false'",
    "--num-steps.x 3": "--num-steps.x must be a whole number of at least 1, not a group",
    "--agent.encoder.hidden 8 x": (
        "--agent.encoder.hidden must be a list, each a whole number of at least 1, not '8 x'"
    ),
    "--agent.encoder.name natur": (
        "--agent.encoder.name must be 'mlp', 'nips2013', 'nature' or 'impala', not 'natur'; "
        "did you mean 'nature'?"
    ),
    "--env.options size": "--env.options is a group of settings",
    "--agent dqn": "--agent is a group of settings; write for example --agent.name value",
    "--agent dqn --agent.name dqn": "--agent is a group of settings",
    "--agent.name dqm": "no agent called 'dqm'; did you mean 'dqn'?",
    "--env.name gymnasum": "no env called 'gymnasum'; did you mean 'gymnasium'?",
    "--agent.name ../agents/dqn": "no agent called '../agents/dqn'",
    "--agent.name": "--agent.name must be text, not empty",
    "3e-4": "'3e-4' is no setting; write for example --agent.learning-rate 3e-4",
}


@pytest.mark.parametrize("flags", FLAG_MISTAKES)
def test_wrong_flag_gets_one_sentence(cartpole, flags):
    assert refusal(flags.split()).startswith(FLAG_MISTAKES[flags])


PLAYS = "env: {name: gymnasium}\nagent: {name: dqn}\n"
FILE_MISTAKES = {
    "env: {name: gymnasium}\nagent: {name: dqn, learning_rate: fast}": (
        "x.yaml: agent.learning_rate must be a number from 0 to 1, not 'fast'"
    ),
    "env: {name: gymnasium}\nagent: {name: dqn, learnin_rate: 1}": (
        "x.yaml: the dqn agent has no setting 'learnin_rate'; did you mean 'learning_rate'"
    ),
    "env: {name: gymnasium}\nagent: {name: dqn, learning-rate: 1}": (
        "x.yaml: the dqn agent has no setting 'learning-rate'; did you mean 'learning_rate'"
    ),
    "env: {name: gymnasium}\nagent: {name: dqn, encoder: {hidden: 64}}": (
        "x.yaml: agent.encoder.hidden must be a list, each a whole number of at least 1, not 64"
    ),
    "env: {name: gymnasium, options: {1: x}}\nagent: {name: dqn}": (
        "x.yaml: a key of env.options must be text, not 1"
    ),
    "env: {name: gymnasium, options: {x: [1]}}\nagent: {name: dqn}": (
        "x.yaml: env.options.x must be true or false or a whole number or a number or text, not [1]"
    ),
    "agent: {name: dqn}": "x.yaml: env.name is missing; `rlplay list envs` names",
    "env: {name: gymnasium}": "x.yaml: agent.name is missing; `rlplay list agents` names",
    "env: {name: gymnasium}\nagent: {double: true}": "x.yaml: agent.name is missing",
    "env: {name: gymnasium}\nagent: {name: dqm}": "no agent called 'dqm'; did you mean 'dqn'?",
    "env: {name: gymnasium}\nagent: {name: 3}": "x.yaml: agent.name must be text, not 3",
    "env: {name: gymnasium}\nagent: dqn": ("x.yaml: agent must be a group of settings, not 'dqn'"),
    PLAYS + "checkpoint:": "x.yaml: checkpoint must be a group of settings, not empty",
    PLAYS + "seed: true": "x.yaml: seed must be a whole number from 0 to 2147483647, not true",
    PLAYS + "seed: -1": "x.yaml: seed must be a whole number from 0 to 2147483647, not -1",
    PLAYS + f"seed: {'9' * 5000}": "x.yaml: seed must be a whole number from 0 to 2147483647",
    PLAYS + f"seed: {'x' * 5000}": "x.yaml: seed must be a whole number from 0 to 2147483647",
    PLAYS + "seed: {a: 1}": "x.yaml: seed must be a whole number from 0 to 2147483647, not a group",
    PLAYS + "sed: 1": "x.yaml: a config has no setting 'sed'; did you mean 'seed'",
    PLAYS + "1: 1": "x.yaml: a config has no setting 1",
    PLAYS + "seed: 1\nseed: 2": "x.yaml, line 4: the key 'seed' stands here for the second time",
    "env: {name: gymnasium, name: atari}": (
        "x.yaml, line 1: the key 'name' stands here for the second time"
    ),
    PLAYS + "evaluation: &a {}\nrecording: *a": "x.yaml, line 4: tags such as !name and aliases",
    PLAYS + "seed: !!int 3": "x.yaml, line 3: tags such as !name and aliases",
    PLAYS + "seed: [": "x.yaml, line ",
    PLAYS + "\tseed: 1": "x.yaml, line 3: ",
    PLAYS + "? [a, b]\n: 1": "x.yaml, line 3: found unhashable key",
    "seed: \x07": "x.yaml is not a YAML file: ",
    "seed: " + "[" * 5000: "x.yaml is not a YAML file: ",
    "": "x.yaml: a config must be a group of settings, not empty",
    "- 1": "x.yaml: a config must be a group of settings, not [1]",
}


@pytest.mark.parametrize("text", FILE_MISTAKES)
def test_wrong_file_gets_one_sentence(write, text):
    write(text)
    assert refusal().startswith(FILE_MISTAKES[text])


def test_yaml_tag_runs_nothing(write, tmp_path):
    marker = tmp_path / "marker"
    text = f"env: !!python/object/apply:os.mkdir [{marker}]"
    yaml.load(text, yaml.UnsafeLoader)  # the negative control: this text would run code
    marker.rmdir()
    write(text)
    assert refusal().startswith("x.yaml, line 1: tags such as !name and aliases such as *name")
    assert not marker.exists()


def test_unknown_or_unreadable_config_gets_one_sentence(write, tmp_path, monkeypatch):
    write(CARTPOLE)
    monkeypatch.setattr(config, "names", lambda kind: ["cartpole/dqn", "pong/dqn"])
    expected = "no config or file called 'pong/dqm'; did you mean 'pong/dqn'"
    assert refusal(name="pong/dqm").startswith(expected)
    assert refusal(name="?").endswith("'?'; `rlplay list configs` names them all")
    assert refusal(name=str(tmp_path)).startswith("no config or file called ")
    assert refusal(name="x" * 300).startswith("no config or file called ")
    (tmp_path / "x.yaml").write_bytes(b"seed: \xff")
    assert refusal().startswith("x.yaml is not a YAML file: ")

    def deny(*_: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", deny)
    assert refusal() == "x.yaml cannot be read: Permission denied"


# Plugins.


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A house of its own, with the agents that are written to it."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    monkeypatch.setattr(config, "HOME", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)
    yield lambda name, text: (tmp_path / "agents" / f"{name}.py").write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
        del sys.modules[name]


def test_file_in_agents_is_an_agent_by_being_there(house):
    house("human", "Config = 3")
    house("_hidden", "")
    house("not-a-name", "")
    house("chess", '"""Plays chess.\n\nWell."""\nraise SystemExit')
    assert config.names("agents") == ["chess", "human"]
    assert config.about("agents", "chess") == "Plays chess"
    assert config.about("agents", "human") == ""
    assert config.plugin("agents", "human").Config == 3


def test_plugin_whose_library_is_missing_says_what_to_install(house):
    house("chess", "import chess_engine_nobody_has.board")
    with pytest.raises(
        Mistake,
        match=r"^agents/chess.py needs the module 'chess_engine_nobody_has', .*pip install [^\n]*$",
    ):
        config.plugin("agents", "chess")


def test_plugin_with_a_bug_gets_a_traceback(house):
    house("broken", "import rlplay.no_such_file")
    with pytest.raises(ModuleNotFoundError):
        config.plugin("agents", "broken")


@pytest.mark.parametrize("foreign", ["agents/__init__.py", "agents/other.txt", "agents.py"])
def test_foreign_package_called_agents_is_named(tmp_path, foreign):
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("print('foreign code runs')")
    code = "from rlplay import config; config.plugin('agents', 'uniform')"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    path = tmp_path / (foreign if foreign == "agents.py" else "agents")
    expected = f"the package 'agents' that Python finds is {path} and not {config.HOME}/agents; run"
    assert ran.stderr.splitlines()[-1].startswith(f"rlplay.core.Mistake: {expected}")
    assert ran.stdout == ""


def test_own_agents_are_found_from_any_folder(tmp_path):
    """The negative control of the test above."""
    code = "from rlplay import config; print(config.plugin('agents', 'uniform').Config())"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


# The converter.


@dataclass(frozen=True)
class Inner:
    name: Literal["a", "1", 2] = "a"
    limit: Annotated[int | None, Range(3, math.inf)] = None


@dataclass(frozen=True)
class Outer:
    needed: Annotated[float, Range(high=1)]
    words: tuple[str, ...] = ()
    inner: Inner = field(default_factory=lambda: Inner(limit=9))


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ({"needed": 1}, Outer(1.0)),
        ({"needed": -math.inf, "words": ["1", "x"]}, Outer(-math.inf, ("1", "x"))),
        ({"needed": 0, "inner": {"name": 2, "limit": 3}}, Outer(0, (), Inner(2, 3))),
        ({"needed": 0, "inner": {"name": 2}}, Outer(0, (), Inner(2, 9))),  # Outer's Inner
    ],
)
def test_converter_takes_what_fits(raw, value):
    assert settings.convert(Outer, raw, "x.yaml") == value


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ("--needed 1 --words 1 x", Outer(1, ("1", "x"))),
        ("--needed 1 --inner.name 1", Outer(1, (), Inner("1", 9))),
        ("--needed 1 --inner.name 2", Outer(1, (), Inner(2, 9))),
        ("--needed -1 --inner.limit 4 --inner.limit None", Outer(-1, (), Inner())),
    ],
)
def test_words_of_a_flag_mean_what_their_setting_can_be(flags, value):
    assert settings.convert(Outer, settings.parse(flags.split()), "x.yaml") == value


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "x.yaml: needed is missing; it must be a number of at most 1"),
        ({"needed": True}, "x.yaml: needed must be a number of at most 1, not true"),
        ({"needed": math.nan}, "x.yaml: needed must be a number of at most 1, not nan"),
        ({"needed": 10**400}, "x.yaml: needed must be a number of at most 1, not 1"),
        ({"needed": 1, "words": [1]}, "x.yaml: words must be a list, each text, not [1]"),
        ({"needed": 1, "inner": {"name": 1}}, "x.yaml: inner.name must be 'a', '1' or 2, not 1"),
        (
            {"needed": 1, "inner": {"limit": 1.0}},
            "x.yaml: inner.limit must be a whole number or none of at least 3, not 1.0",
        ),
    ],
)
def test_converter_names_what_does_not_fit(raw, message):
    with pytest.raises(Mistake) as caught:
        settings.convert(Outer, raw, "x.yaml")
    assert str(caught.value).startswith(message)


def test_type_that_no_file_can_hold_is_a_bug_and_no_mistake():
    with pytest.raises(TypeError, match="a setting cannot be of the type"):
        settings.fit(bytes, "x")


# The help text and the cost of an import.


def test_help_shows_every_setting_with_its_docstring_and_value(cartpole):
    text = " ".join(config.describe(cartpole("--agent.epsilon-end 0.0123")).split())
    assert text.startswith("usage: rlplay train CONFIG")
    for said in [
        "Agent steps between two lines of the log. (default: 10000)",
        "--agent.learning-rate FLOAT Step size of Adam.",
        "--agent.double, --agent.no-double",
        "Share of random actions after `epsilon_steps`. (default: 0.0123)",
        "--agent.encoder.hidden",
        "Widths of the layers of an mlp. (default: 32 32)",
        "Any Gymnasium id.",
        "--evaluation.num-episodes INT Episodes to play, each from its own seed.",
        "--checkpoint.keep INT",
        "--recording.every INT",
    ]:
        assert said in text, said
    assert "--agent.learning-rate" not in config.describe(cartpole("--agent.name uniform"))


def test_import_of_config_loads_no_heavy_library():
    heavy = {"torch", "gymnasium", "ale_py", "tyro", "av", "PIL", "numba", "agents", "envs"}
    code = f"import sys, rlplay.config; print({heavy} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ,
    )
    assert ran.stdout.strip() == "set()"
