"""What this machine has and lacks for rlplay, one line each, and how to mend what is lacking.

Every check stands alone: a library that is missing or broken is a line, and the others still run.
It looks only: nothing is installed, and nothing is left behind.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rlplay import config
from rlplay.core import Mistake
from rlplay.run import processor

PYTHON, TORCH = (3, 11), (2, 11)  # the oldest that serve
ENOUGH_DISK, ENOUGH_MEMORY = 5e9, 2e9  # bytes
LARGEST_REPLAY = 1_000_000  # moments, as in Mnih et al. (2015)
MOMENT = 84 * 84 + 11  # bytes of one Atari moment in a replay memory
PIP = f"{shlex.quote(sys.executable)} -m pip install"
ALL = f"{PIP} -c {shlex.quote(f'{config.HOME}/constraints.txt')} -e {shlex.quote(str(config.HOME))}"


class Finding(NamedTuple):
    """What a check found out, and what to do about it; nothing to do where all is well."""

    found: str
    mend: str = ""


def doctor(root: Path) -> int:
    """Print a line for each check, for runs kept in `root`; return 1 where something must be
    mended, else 0."""
    must_mend = 0
    for name, check in CHECKS.items():
        for found, mend in findings(check, root):
            must_mend += bool(mend)
            print(f"{'MEND' if mend else 'ok':<5} {name:<12} {found}" + (f": {mend}" * bool(mend)))
    if must_mend:
        print(f"{must_mend} to mend")
    return int(must_mend > 0)


def findings(check: Callable[[Path], Iterator[Finding]], root: Path) -> list[Finding]:
    """Return what a check finds, the last of it being what went wrong in it, if anything."""
    made: list[Finding] = []
    try:
        made.extend(check(root))
    except ModuleNotFoundError as error:
        made.append(Finding(f"the module {error.name!r} is not installed", ALL))
    except Exception as error:  # whatever a broken library does, it is a line and not a traceback
        reason = " ".join(str(error).split()) or "no reason given"
        made.append(Finding(f"{type(error).__name__}, {reason}", f"{ALL} --force-reinstall"))
    return made


def python(root: Path) -> Iterator[Finding]:
    found = f"{sys.version.split()[0]} in {sys.prefix}"
    wanted = ".".join(map(str, PYTHON))
    mend = f"rlplay needs Python {wanted} or newer; make the environment anew with such a one"
    yield Finding(found, mend if sys.version_info < PYTHON else "")


def torch(root: Path) -> Iterator[Finding]:
    import torch

    major, minor = torch.__version__.split(".")[:2]
    too_old = (int(major), int(minor)) < TORCH
    wanted = ".".join(map(str, TORCH))
    yield Finding(torch.__version__, f"{PIP} --upgrade 'torch>={wanted}'" if too_old else "")


def device(root: Path) -> Iterator[Finding]:
    import torch

    from rlplay.nets import hardware

    best = hardware.device("auto")
    if best.type == "cuda":
        name = torch.cuda.get_device_name()
        gigabytes = f", {torch.cuda.get_device_properties(best).total_memory / 1e9:.0f} GB"
    else:
        name, gigabytes = f"no CUDA GPU; {processor()}, {os.cpu_count()} cores", ""
    bfloat16 = "with" if hardware.has_bfloat16(best) else "without"
    yield Finding(f"{name}{gigabytes}, {bfloat16} bfloat16 in hardware")
    if best.type == "cpu" and Path("/proc/driver/nvidia/gpus").is_dir():
        mend = f"mend the driver until `nvidia-smi` answers, then {PIP} --force-reinstall torch"
        yield Finding("there is an NVIDIA GPU that torch cannot use", mend)


def roms(root: Path) -> Iterator[Finding]:
    from ale_py import roms

    package = Path(roms.__file__).parent
    elsewhere = os.environ.get("ALE_ROMS_DIR")
    folder = Path(elsewhere or package)
    expected: dict[str, str] = json.loads((package / "md5.json").read_text())
    wrong = []
    for file, checksum in expected.items():
        rom = folder / file
        if not rom.is_file():
            wrong.append(f"{file} is missing")
        elif hashlib.md5(rom.read_bytes(), usedforsecurity=False).hexdigest() != checksum:
            wrong.append(f"{file} is damaged")
    if not wrong:
        yield Finding(f"all {len(expected)} ROMs in {folder} are as ale-py wants them")
        return
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    mend = "unset ALE_ROMS_DIR" if elsewhere else f"{PIP} --force-reinstall --no-deps ale-py"
    yield Finding(f"in {folder} {', '.join(wrong[:5])}{more}", mend)


def film(root: Path) -> Iterator[Finding]:
    import av
    from av.codec import Codec

    try:
        codec = Codec("libx264", "w")
    except ValueError:  # an FFmpeg of the system's own, built without it
        yield Finding(
            f"PyAV {av.__version__} has no libx264", f"{PIP} --force-reinstall --only-binary av av"
        )
        return
    yield Finding(f"{codec.name} in PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}")


def tensorboard(root: Path) -> Iterator[Finding]:
    import tensorboard

    importlib.import_module("torch.utils.tensorboard")
    yield Finding(tensorboard.__version__)


def plugins(root: Path) -> Iterator[Finding]:
    for kind in ("envs", "agents"):
        sound, refusals = [], []
        for name in config.names(kind):
            try:
                config.plugin(kind, name)
                sound.append(name)
            except Mistake as mistake:  # missing modules, or a foreign package: once, not for each
                refusals.append(Finding(f"{kind} cannot be loaded", str(mistake)))
            except Exception as error:
                reason = f"{type(error).__name__}, {' '.join(str(error).split())}"
                refusals.append(Finding(f"{kind}/{name}.py ends in {reason}", "mend that file"))
        yield from dict.fromkeys(refusals)
        if sound:
            yield Finding(f"{kind} in {config.HOME / kind}: {', '.join(sound)}")


def runs(root: Path) -> Iterator[Finding]:
    there = root.absolute()
    while not there.exists():
        there = there.parent
    elsewhere = "choose another place with --runs FOLDER"
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        yield Finding(f"cannot write to {there}: {error.strerror}", elsewhere)
        return
    free = shutil.disk_usage(there).free
    mend = f"make room for {ENOUGH_DISK / 1e9:.0f} GB, or {elsewhere}"
    yield Finding(
        f"{root.absolute()} can be written, {free / 1e9:.1f} GB free",
        mend if free < ENOUGH_DISK else "",
    )


def memory(root: Path) -> Iterator[Finding]:
    from rlplay.nets import hardware

    free = hardware.free_memory(hardware.device("cpu"))
    fitting = int(0.8 * free / MOMENT)
    found = f"{free / 1e9:.1f} GB free"
    if free < ENOUGH_MEMORY:
        yield Finding(found, f"close other programs, or set agent.replay_size to {fitting} or less")
    elif fitting < LARGEST_REPLAY:
        needed = LARGEST_REPLAY * MOMENT / 1e9
        yield Finding(
            f"{found}; {LARGEST_REPLAY:,} Atari moments would take {needed:.1f} GB, so keep"
            f" agent.replay_size at {fitting} or less"
        )
    else:
        yield Finding(f"{found}, enough for a replay memory of {LARGEST_REPLAY:,} Atari moments")


CHECKS: dict[str, Callable[[Path], Iterator[Finding]]] = {
    "Python": python,
    "torch": torch,
    "device": device,
    "Atari ROMs": roms,
    "film": film,
    "TensorBoard": tensorboard,
    "plugins": plugins,
    "runs": runs,
    "memory": memory,
}
