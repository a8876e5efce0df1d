"""The doctor finds what is wrong with a machine, says how to mend it, and leaves nothing behind."""

from __future__ import annotations

import shutil
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from rlplay import config, doctor
from rlplay.core import Spec
from rlplay.nets import hardware
from rlplay.replay import Replay


@pytest.fixture(autouse=True)
def roomy(monkeypatch):
    """A machine with memory and disk for everything, and without a GPU that torch cannot use."""
    monkeypatch.setattr(hardware, "free_memory", lambda device: int(64e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 10**12))
    monkeypatch.delenv("ALE_ROMS_DIR", raising=False)
    monkeypatch.setitem(doctor.CHECKS, "device", lambda root: iter([doctor.Finding("CPU")]))


@pytest.fixture
def visit(tmp_path, capsys):
    """Call the doctor; return the exit code, what is ok and what must be mended, line by line."""

    def call(root: Path = tmp_path / "runs") -> tuple[int, list[str], list[str]]:
        code = doctor.doctor(root)
        lines = capsys.readouterr().out.splitlines()
        well = [line for line in lines if line.startswith("ok ")]
        ill = [line for line in lines if line.startswith("MEND ")]
        rest = [line for line in lines if line not in well + ill]
        assert rest == ([f"{len(ill)} to mend"] if ill else [])
        return code, well, ill

    return call


@pytest.fixture
def rom_folder(tmp_path, monkeypatch) -> Path:
    """A copy of ale-py's ROMs, which the doctor takes for the original."""
    from ale_py import roms

    original = Path(roms.__file__).parent
    copy = tmp_path / "roms"
    shutil.copytree(original, copy)
    monkeypatch.setattr(roms, "__file__", str(copy / "__init__.py"))
    return copy


def test_healthy_machine_has_nothing_to_mend(visit, tmp_path):
    code, well, ill = visit()
    assert (code, ill) == (0, [])
    for name in doctor.CHECKS:
        assert any(name in line for line in well), name
    assert list(tmp_path.iterdir()) == []


def test_device_is_named_and_told_whether_it_has_bfloat16(monkeypatch):
    found = [finding.found for finding in doctor.device(Path("runs"))]
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA GPU"
    assert found[0].startswith(name)
    for has, word in ((True, " with bfloat16"), (False, " without bfloat16")):
        monkeypatch.setattr(hardware, "has_bfloat16", lambda device, has=has: has)
        assert word in next(doctor.device(Path("runs"))).found


def test_missing_module_is_one_line_and_the_other_checks_go_on(visit, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    code, well, ill = visit()
    assert code == 1
    [line] = ill
    assert "film" in line
    assert "'av' is not installed" in line
    assert "pip install" in line
    assert len(well) == len(visit()[1]) >= len(doctor.CHECKS) - 1


def test_broken_library_is_one_line_and_no_traceback(visit, monkeypatch):
    def broken(root):
        yield doctor.Finding("half of it works")
        raise OSError("libcudart.so.99: cannot open\nshared object file")

    monkeypatch.setitem(doctor.CHECKS, "torch", broken)
    code, well, ill = visit()
    assert code == 1
    [line] = ill
    assert "libcudart.so.99: cannot open shared object file" in line
    assert "--force-reinstall" in line
    assert any("half of it works" in line for line in well)


def test_old_python_and_old_torch_must_be_mended(visit, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 1, "final", 0))
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    code, _, ill = visit()
    assert code == 1
    assert "3.11 or newer" in ill[0]
    assert "torch>=2.11" in ill[1]


def test_damaged_and_missing_roms_are_named(visit, rom_folder):
    assert visit()[0] == 0
    damaged = bytearray((rom_folder / "pong.bin").read_bytes())
    damaged[7] ^= 1
    (rom_folder / "pong.bin").write_bytes(damaged)
    (rom_folder / "breakout.bin").unlink()
    code, _, ill = visit()
    assert code == 1
    [line] = ill
    assert "pong.bin is damaged" in line
    assert "breakout.bin is missing" in line
    assert "--force-reinstall --no-deps ale-py" in line


def test_all_roms_missing_is_still_one_short_line(visit, rom_folder):
    for rom in rom_folder.glob("*.bin"):
        rom.unlink()
    _, _, [line] = visit()
    assert "more" in line
    assert len(line) < 500


def test_roms_of_the_users_own_folder_are_the_ones_looked_at(visit, monkeypatch, tmp_path):
    monkeypatch.setenv("ALE_ROMS_DIR", str(tmp_path))
    _, _, [line] = visit()
    assert str(tmp_path) in line
    assert "unset ALE_ROMS_DIR" in line


def test_ffmpeg_without_h264_must_be_mended(visit, monkeypatch):
    def unknown(name, mode):
        raise ValueError(name)

    monkeypatch.setattr("av.codec.Codec", unknown)
    _, _, [line] = visit()
    assert "no libx264" in line


@pytest.mark.parametrize("below", ["file", "file/runs"])
def test_runs_folder_that_cannot_be_written_must_be_mended(visit, tmp_path, below):
    (tmp_path / "file").write_text("")
    _, _, [line] = visit(tmp_path / below)
    assert "cannot write" in line
    assert "--runs FOLDER" in line


def test_nearly_full_disk_must_be_mended(visit, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 4e9))
    _, _, [line] = visit()
    assert "4.0 GB free" in line
    assert "make room" in line


def test_small_memory_is_told_the_replay_size_that_fits(visit, monkeypatch):
    for free, must_mend in ((6e9, False), (1e9, True)):
        monkeypatch.setattr(hardware, "free_memory", lambda device, free=free: int(free))
        code, well, ill = visit()
        [line] = [line for line in well + ill if " memory " in line]
        fitting = int(line.partition("agent.replay_size ")[2].split()[1])
        assert 0.7 * free < fitting * doctor.MOMENT < 0.9 * free
        assert (code, bool(ill)) == (int(must_mend), must_mend)


def test_size_of_an_atari_moment_is_that_of_the_replay_memory():
    pictures = gymnasium.spaces.Box(0, 255, (4, 84, 84), np.uint8)
    spec = Spec(1, pictures, gymnasium.spaces.Discrete(18), num_stacked=4)
    needed = Replay.num_bytes(spec, 100_000, prioritized=False)
    assert needed == pytest.approx(100_000 * doctor.MOMENT, rel=0.001)


def test_foreign_package_of_the_same_name_is_found(visit, monkeypatch, tmp_path):
    for kind in ("agents", "envs"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "dqn.py").write_text("")
    monkeypatch.setattr(config, "HOME", tmp_path)
    _, _, ill = visit()
    assert len(ill) == 2
    assert all("the package" in line and "project's own environment" in line for line in ill)


def test_plugin_that_fails_is_named_and_the_others_are_loaded(visit, monkeypatch):
    load = config.plugin

    def plugin(kind, name):
        if name == "dqn":
            raise SyntaxError("never\nclosed")
        return load(kind, name)

    monkeypatch.setattr(config, "plugin", plugin)
    code, well, ill = visit()
    assert code == 1
    [line] = ill
    assert "agents/dqn.py ends in SyntaxError, never closed" in line
    assert any("uniform" in line for line in well)


def test_gpu_without_a_driver_must_be_mended(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("torch can use this GPU")
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    found = list(doctor.device(Path("runs")))
    assert "nvidia-smi" in found[1].mend


def test_nothing_is_warned_about(visit):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert visit()[0] == 0
