"""`rlplay probe` and `rlplay similar`: a run's encoder looks at recorded frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rlplay import eyes, run
from rlplay.__main__ import run_verb
from rlplay.insight import probe
from rlplay.perception.frames import MOMENT, Manifest

GREEN = 200


def record(folder: Path, game: str = "pong", num: int = 120) -> None:
    """Write Pong in which a player's paddle, whose place RAM knows, jumps about; six episodes."""
    random = np.random.default_rng(0)
    screens = np.zeros((num, 210, 160), np.uint8)
    moments = np.zeros(num, MOMENT)
    moments["episode"] = np.arange(num) // 20
    moments["ram"][:, 51] = random.integers(3, size=num) * 50 + 50
    for screen, top in zip(screens, moments["ram"][:, 51], strict=True):
        screen[top : top + 30, 140:150] = GREEN
    protocol = {"game": game, "action_names": ["noop"], "screen": [210, 160]}
    folder.mkdir(parents=True)
    manifest = Manifest(protocol, {}, palette={"0": "000000", str(GREEN): "5cba5c"})
    manifest.append(folder, screens, moments)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Return a folder with recordings and a run in runs/."""
    root = tmp_path_factory.mktemp("probe")
    record(root / "pong")
    config = root / "contrast.yaml"
    config.write_text(
        f"data: {{name: frames, folder: {root / 'pong'}, size: 20, grey: true, num_stacked: 2}}\n"
        "task: {name: contrast, kind: siamese, encoder: {name: small, width: 0.1}}\nepochs: 1\n"
    )
    assert run_verb(["train", str(config), "--runs", str(root / "runs"), "--num-drawn", "4"]) == 0
    return root


def typed(root: Path, *words: str) -> int:
    return run_verb([*words, "--runs", str(root / "runs")])


def test_probe_finds_the_paddle_in_every_map_and_keeps_what_it_found(root, capsys):
    assert typed(root, "probe", "last", str(root / "pong"), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    maps = [f"{whose} map {level}" for whose in ("random", "encoder") for level in (1, 2)]
    assert list(report["layers"]) == ["pixels", *maps]
    assert all(layer["f1"] == {"player_y": 1.0} for layer in report["layers"].values())
    assert "ball_x" in report["left_out"]
    folder = run.find("last", root / "runs").folder
    assert json.loads((folder / "probe-pong.json").read_text()) == report
    assert Image.open(folder / "probe-pong.png").size[0] > 500


def test_probe_reads_nothing_out_of_nothing(root, monkeypatch, capsys):
    def blank(network, level, source, most):
        return np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)

    monkeypatch.setattr(probe, "features", blank)
    typed(root, "probe", "last", str(root / "pong"), "--json", "--no-baselines")
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert all(layer["mean_f1"] < 0.7 for layer in layers.values())


def test_reborn_encoder_is_another_of_the_same_shape_and_leaves_the_old_one(root):
    look = eyes.load(run.find("last", root / "runs"), "", print)
    before = {name: tensor.clone() for name, tensor in look.encoder.state_dict().items()}
    state = torch.get_rng_state()
    one, same, other = (probe.reborn(look.encoder, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in e.parameters()]) for e in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert all(torch.equal(before[k], v) for k, v in look.encoder.state_dict().items())


def test_large_maps_are_averaged_down():
    maps = torch.rand(2, 3, 40, 30)
    assert probe.coarse(maps, 3 * 40 * 30).shape == (2, 3600)
    assert probe.coarse(maps, 1000).shape[1] <= 1000
    assert torch.allclose(probe.coarse(maps, 3), maps.mean((2, 3)))


def test_a_frame_is_most_like_itself(root, capsys):
    assert typed(root, "similar", "last", "37", "--num", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines[2].split()
    found = [line.split() for line in lines[2:5]]
    ram = np.load(root / "pong" / "moments-00000.npy")["ram"][:, 51]
    assert first[1:] == [str(int(first[0]) // 20), "0.0000"]
    assert {ram[int(number)] for number, *_ in found} == {ram[37]}
    folder = run.find("last", root / "runs").folder
    sheet = Image.open(folder / "similar-37.png")
    sheet.save(root / "query.png")
    assert (
        typed(root, "similar", "last", str(root / "query.png"), "--out", str(root / "o.png")) == 0
    )
    assert (root / "o.png").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("probe", "last"), "needs a run and recorded frames"),
        (("probe", "last", "nowhere"), "no recorded frames"),
        (("probe", "last", "other"), "nothing is known of the state"),
        (("probe", "digits", "pong"), "no run"),
        (("probe", "last", "pong", "--min-entropy", "8"), "has an entropy"),
        (("similar", "last"), "needs a run and a frame"),
        (("similar", "last", "120"), "numbered 0 to 119"),
        (("similar", "last", "-1"), "numbered 0 to 119"),
        (("similar", "last", "\u00b2"), "neither a frame's number"),
        (("similar", "last", "huge.png"), "cannot be read as a picture"),
        (("similar", "last", "nothing.png"), "neither a frame's number"),
        (("similar", "last", "contrast.yaml"), "cannot be read as a picture"),
        (("similar", "last", "3", "--dataset", "nowhere"), "no recorded frames"),
    ],
)
def test_bad_input_is_one_sentence(root, words, sentence, capsys, monkeypatch):
    if not (root / "other").exists():
        record(root / "other", game="zaxxon")
        Image.new("1", (20_000, 20_000)).save(root / "huge.png")  # more than PIL opens
    monkeypatch.chdir(root)
    assert typed(root, *words) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_picture_too_large_to_read_is_one_sentence(root, capsys, monkeypatch):
    Image.new("RGB", (8, 8)).save(root / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    assert typed(root, "similar", "last", str(root / "large.png")) == 2
    assert "cannot be read as a picture" in capsys.readouterr().err
