"""A checkpoint: a folder that is whole or not there, checked before it is believed, and inert.

    000100000/
        agent.json, agent.npz     a part: its structure and scalars, and its arrays
        weights.safetensors       the part called "weights": arrays by flat name
        manifest.json             format, and the size and sha256 of every file; written last

It is written as `.000100000.<pid>`, brought to the disk, and renamed. Where a checkpoint of that
name stands already, the old one is called `.000100000.aside` between two renames, and is found
under its real name even then. One process writes to a folder at a time; any number may read.

It does not know what the parts mean: that is for whoever saves and loads them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import safetensors.numpy

from rlplay.core import Array, Mistake, Range, State

FORMAT = 1
WEIGHTS = "weights"
ARRAY = "@array"  # {"@array": 3} in a part's JSON stands for the array "arr_3" in its npz
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
HIDDEN = re.compile(rf"\.({NAME.pattern})\.([0-9]+|aside)")
PART = re.compile(r"(?!manifest$)[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Config:
    """How often a run is saved, and how much of it."""

    every: Annotated[int, Range(1)] = 100_000
    """Agent steps between two checkpoints."""
    keep: Annotated[int, Range(1)] = 2
    """How many of the newest checkpoints are kept, besides the best one."""
    replay_gigabytes: Annotated[float, Range(0)] = 1.0
    """A replay memory larger than this is left out of checkpoints; a run resumed from one starts
    with an empty memory, and says so. Gigabytes."""


class Damaged(Mistake):
    """A checkpoint is not what was saved. One sentence that names the file."""


def save(folder: Path, name: str, parts: Mapping[str, State]) -> Path:
    """Write `parts` as the checkpoint `folder/name`, replacing one of that name; return its path.

    Raises TypeError, before anything is written, where a part holds what a checkpoint cannot;
    Mistake where the disk is full or writing is not allowed. Then, as after a kill at any moment,
    every older checkpoint is still there.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be the name of a checkpoint")
    contents = [item for part in parts for item in _contents(part, parts[part]).items()]
    final, temporary = folder / name, folder / f".{name}.{os.getpid()}"
    with _disk_errors(f"checkpoint {name} could not be saved in {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        _tidy(folder)
        try:
            temporary.mkdir()
            entries = {file: _write(temporary / file, data) for file, data in contents}
            manifest = {"format": FORMAT, "files": entries}
            _write(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
            _sync(temporary)
            if final.exists():
                os.rename(final, _aside(final))
            os.rename(temporary, final)
            _sync(folder)
        finally:
            _tidy(folder)
    return final


def load(path: Path, without: Collection[str] = ()) -> dict[str, State]:
    """Return the parts of the checkpoint at `path` but those named in `without`, every file checked
    first.

    Raises Damaged where a file is missing, altered or of another format."""
    if not path.exists() and _aside(path).exists():
        path = _aside(path)
    with _damage(path / "manifest.json"):
        manifest = json.loads((path / "manifest.json").read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}, not {FORMAT}")
        entries = dict(manifest["files"])
        parts = list(dict.fromkeys(file.split(".")[0] for file in entries))
        if set(entries) != {file for part in parts for file in _files(part)}:
            raise ValueError("it does not list the files of a checkpoint")
    parts = [part for part in parts if part not in without]
    for file in [file for part in parts for file in _files(part)]:
        entry = entries[file]
        with _damage(path / file):
            if _entry(path / file) != entry:
                raise ValueError("its size or checksum is not what was saved")
    return {part: _read(path, part) for part in parts}


def names(folder: Path) -> list[str]:
    """Return the names of the numbered checkpoints in `folder`, oldest to newest."""
    if not folder.is_dir():
        return []
    found = {path.name.removesuffix(".aside").removeprefix(".") for path in folder.glob(".*.aside")}
    found |= {path.name for path in folder.iterdir()}
    return sorted((name for name in found if re.fullmatch("[0-9]+", name)), key=int)


def newest(
    folder: Path, announce: Callable[[str], None], without: Collection[str] = ()
) -> tuple[Path, dict[str, State]]:
    """Return the newest sound numbered checkpoint and its parts; `announce` each damaged one.

    Raises Mistake where there is none."""
    older = names(folder)
    while older:
        path = folder / older.pop()
        try:
            return path, load(path, without)
        except Damaged as damage:
            then = "taking the one before it" if older else "there is none before it"
            announce(f"checkpoint {path.name} is damaged ({damage}); {then}")
    raise Mistake(
        f"there is no checkpoint in {folder} that can be loaded; "
        "put back a copy of one, or start a new run with `rlplay train`"
    )


def prune(folder: Path, keep: int, newest: str = "") -> None:
    """Remove all numbered checkpoints but the `keep` up to the one called `newest`, at least 1.
    Later ones are of a future that was given up, or damaged.

    Raises Mistake where that is not allowed."""
    if keep < 1:
        raise ValueError(f"at least one checkpoint must be kept, not {keep}")
    with _disk_errors(f"old checkpoints could not be removed from {folder}"):
        _tidy(folder)
        there = names(folder)
        kept = [name for name in there if not newest or int(name) <= int(newest)][-keep:]
        for name in set(there) - set(kept):
            os.rename(folder / name, folder / f".{name}.{os.getpid()}")
        _sync(folder)
        _tidy(folder)


def _files(part: str) -> list[str]:
    if not PART.fullmatch(part):
        raise ValueError(f"{part!r} cannot be the name of a part")
    return ["weights.safetensors"] if part == WEIGHTS else [f"{part}.json", f"{part}.npz"]


def _contents(part: str, state: State) -> dict[str, bytes | list[Array]]:
    """Return what to write, by file name: bytes, or the arrays of an npz."""
    arrays: list[Array] = []
    structure = _pack(state, arrays, part)
    if part != WEIGHTS:
        return dict(zip(_files(part), [json.dumps(structure).encode(), arrays], strict=True))
    if not all(isinstance(value, np.ndarray) for value in state.values()):
        raise TypeError("weights must be arrays by flat name")
    # safetensors writes memory as it lies, whatever the order of the axes
    flat = {name: np.asarray(value, order="C") for name, value in state.items()}
    return {"weights.safetensors": safetensors.numpy.save(flat)}


def _pack(value: Any, arrays: list[Array], where: str) -> Any:
    """Return `value` as JSON can hold it; its arrays move to the end of `arrays`."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        arrays.append(value)
        return {ARRAY: len(arrays) - 1}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or key == ARRAY:
                raise TypeError(f"{where} has the key {key!r}, which a checkpoint cannot hold")
        return {key: _pack(item, arrays, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_pack(item, arrays, f"{where}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = "array of objects" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"{where} is of type {kind}, which a checkpoint cannot hold")


def _unpack(value: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() != {ARRAY}:
        return {key: _unpack(item, arrays) for key, item in value.items()}
    array = arrays[f"arr_{value[ARRAY]}"]
    if not isinstance(array, np.ndarray):  # numpy hands out what is not in its format as bytes
        raise TypeError("not an array")
    return array


def _write(path: Path, data: bytes | list[Array]) -> dict[str, Any]:
    """Bring a file to the disk and return its manifest entry. Arrays are streamed, not copied."""
    with open(path, "xb") as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            np.savez(file, *data, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return _entry(path)


def _entry(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def _read(path: Path, part: str) -> State:
    if part == WEIGHTS:
        with _damage(path / "weights.safetensors"):
            return safetensors.numpy.load_file(path / "weights.safetensors")
    with _damage(path / f"{part}.json"):
        structure = json.loads((path / f"{part}.json").read_bytes())
    with _damage(path / f"{part}.npz"), np.load(path / f"{part}.npz", allow_pickle=False) as arrays:
        return _unpack(structure, arrays)


def _tidy(folder: Path) -> None:
    """Remove what a killed or failed writer left; call what was set aside by its name again."""
    for path in folder.iterdir():
        if match := HIDDEN.fullmatch(path.name):
            if match[2] == "aside" and not (folder / match[1]).exists():
                os.rename(path, folder / match[1])
            else:
                shutil.rmtree(path)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.aside")


def _sync(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Mistake(
            f"{what}: {error.strerror or error}; all other checkpoints are untouched, "
            "so free some space or mend the rights, and resume"
        ) from error


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever a reader makes of a foreign file is damage; too little memory for it is not."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise Damaged(f"{path} cannot be used: {reason}") from error
