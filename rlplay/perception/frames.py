"""Recorded play, to learn to see from: a folder of what a game showed, moment by moment.

    datasets/pong/
      screens-00000.npy     [n, H, W] uint8, the screen in the emulator's own palette colours
      moments-00000.npy     [n] records: RAM, action, reward, terminated, episode
      ...                   further chunks
      manifest.json         how it was played, the palette, and the size and sha256 of every file

A moment holds what was seen, what was earned on arriving there and the action taken next, 255 where
the episode had ended. The picture in colours, the objects on it and their masks are all made from
screen and RAM when they are read: a third of the bytes, and better labels need no new recording.
A chunk counts once the manifest names it, which is written last; every file is written under
another name and renamed, so that a kill leaves whole chunks. It does not know how play comes about.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rlplay.core import Array, Mistake
from rlplay.perception.objects import Labels, Object, class_map, labels, state

FORMAT = 1
MANIFEST = "manifest.json"
NO_ACTION = 255
MOMENT = np.dtype(
    [
        ("ram", np.uint8, (128,)),
        ("reward", "<f4"),  # earned on arriving, in the game's points
        ("episode", "<i4"),
        ("action", np.uint8),  # taken next, an index into the manifest's action_names
        ("terminated", np.bool_),
    ]
)
Protocol = Mapping[str, Any]
"""How it was played: game, policy, seed, sticky_actions, frame_skip, ..., action_names."""


class Damaged(Mistake):
    """A dataset that is not what was written."""


@dataclass
class Manifest:
    """What a dataset says of itself."""

    protocol: dict[str, Any]
    versions: dict[str, str]
    chunks: list[dict[str, Any]] = field(default_factory=list)
    """Of each: num_moments, and the size and sha256 of its files by name."""
    palette: dict[str, str] = field(default_factory=dict)
    """The RGB, in hexadecimal, of each palette colour that was seen."""

    @property
    def num_moments(self) -> int:
        return sum(chunk["num_moments"] for chunk in self.chunks)

    def check(self) -> None:
        """Raise ValueError, TypeError, KeyError or AttributeError where it says what cannot be."""
        height, width = self.protocol["screen"]
        if min(height, width) < 1 or not isinstance(self.protocol["game"], str):
            raise ValueError("protocol")
        if not all(isinstance(name, str) for name in self.protocol["action_names"]):
            raise ValueError("action_names")
        for number, chunk in enumerate(self.chunks):
            for kind in ("screens", "moments"):
                entry = chunk["files"][f"{kind}-{number:05d}.npy"]
                if not isinstance(entry["sha256"], str) or min(entry["size"], 1) < 0:
                    raise ValueError("files")
            if chunk["num_moments"] < 1:
                raise ValueError("num_moments")
        for colour, rgb in self.palette.items():
            if not 0 <= int(colour) < 256 or len(bytes.fromhex(rgb)) != 3:
                raise ValueError("palette")

    def append(self, folder: Path, screens: Array, moments: Array) -> None:
        """Write a chunk, [n, H, W] and [n], and then the manifest that names it."""
        number = len(self.chunks)
        files = {
            f"screens-{number:05d}.npy": write_array(folder / f"screens-{number:05d}.npy", screens),
            f"moments-{number:05d}.npy": write_array(folder / f"moments-{number:05d}.npy", moments),
        }
        self.chunks.append({"num_moments": len(screens), "files": files})
        self.write(folder)

    def write(self, folder: Path) -> None:
        text = json.dumps({"format": FORMAT, **vars(self)}, indent=1) + "\n"
        write(folder / MANIFEST, lambda file: file.write(text.encode()))


def read_manifest(folder: Path) -> Manifest:
    """Return a dataset's manifest. Raises Mistake where there is none, Damaged where it is none of
    ours."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text("utf-8"))
        if found.pop("format") != FORMAT:
            raise Damaged(f"{path} is of another version of rlplay; record the frames anew")
        manifest = Manifest(**found)
        manifest.check()
        return manifest
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Mistake(
            f"there are no frames in {folder}; type `rlplay collect-frames GAME --out {folder}`"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, IsADirectoryError) as error:
        raise damaged(path, "cannot be read") from error


class Frames:
    """A dataset on the disk, mapped into memory: n moments of a game."""

    def __init__(self, folder: Path | str) -> None:
        """Open a dataset. Raises Mistake where there is none, Damaged where a file is missing or of
        another size; a file whose bytes have changed is found out when it is first read."""
        self.folder = Path(folder)
        self.manifest = read_manifest(self.folder)
        self.protocol: Protocol = self.manifest.protocol
        self.starts = np.cumsum([0] + [chunk["num_moments"] for chunk in self.manifest.chunks])
        if len(self) == 0:
            raise Mistake(f"no frames were recorded in {self.folder} yet; go on recording")
        for chunk in self.manifest.chunks:
            for name, entry in chunk["files"].items():
                path = self.folder / name
                size = path.stat().st_size if path.is_file() else None
                if size != entry["size"]:
                    what = "is missing" if size is None else f"has {size} of {entry['size']} bytes"
                    raise damaged(path, what)
        self.palette = np.zeros((256, 3), np.uint8)
        for colour, rgb in self.manifest.palette.items():
            self.palette[int(colour)] = list(bytes.fromhex(rgb))
        self._screens: dict[int, Array] = {}

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def game(self) -> str:
        return self.protocol["game"]

    @cached_property
    def labels(self) -> Labels:
        """What is known of this game. Raises Mistake where nothing is."""
        return labels(self.game)

    @cached_property
    def moments(self) -> Array:
        """All that is known of every moment but its screen, [n] records of dtype MOMENT."""
        return np.concatenate([self._read(i, "moments") for i in range(len(self.starts) - 1)])

    def screens(self, index: Array | Sequence[int]) -> Array:
        """Return the screens of these moments in palette colours, [B, H, W] uint8."""
        index = np.asarray(index, np.int64)
        if len(index) and not 0 <= index.min() <= index.max() < len(self):
            raise IndexError(f"the frames are numbered 0..{len(self) - 1}")
        chunks = np.searchsorted(self.starts, index, side="right") - 1
        found = np.empty((len(index), *self.protocol["screen"]), np.uint8)
        for chunk in np.unique(chunks):
            here = chunks == chunk
            if chunk not in self._screens:
                self._screens[chunk] = self._read(int(chunk), "screens")
            found[here] = self._screens[chunk][index[here] - self.starts[chunk]]
        return found

    def pictures(self, index: Array | Sequence[int]) -> Array:
        """Return the frames in colours, [B, 3, H, W] uint8 RGB."""
        coloured = self.palette[self.screens(index)]  # [B, H, W, 3]
        return np.ascontiguousarray(coloured.transpose(0, 3, 1, 2))

    def objects(self, number: int) -> list[Object]:
        """Return what can be seen at one moment."""
        screen = self.screens([number])[0]
        return self.labels.objects(self.moments["ram"][number], screen)

    def masks(self, index: Array | Sequence[int]) -> Array:
        """Return the class of each pixel, [B, H, W] uint8: 0 for the background, else one more than
        its number in `labels.KINDS`."""
        screens, rams = self.screens(index), self.moments["ram"][index]
        return np.stack(
            [
                class_map(self.labels.objects(ram, screen), self.labels.KINDS, screen.shape)
                for ram, screen in zip(rams, screens, strict=True)
            ]
        )

    def variables(self, index: Array | Sequence[int]) -> Array:
        """Return the state's variables, [B, V] uint8, named by `labels.VARIABLES`."""
        return state(self.moments["ram"][index], self.labels.VARIABLES)

    def _read(self, chunk: int, kind: str) -> Array:
        """Return one file of a chunk, mapped into memory, once its checksum is right."""
        name = f"{kind}-{chunk:05d}.npy"
        path = self.folder / name
        with path.open("rb") as file:
            if (
                hashlib.file_digest(file, "sha256").hexdigest()
                != (self.manifest.chunks[chunk]["files"][name]["sha256"])
            ):
                raise damaged(path, "does not have its checksum")
        array = np.load(path, mmap_mode="r" if kind == "screens" else None, allow_pickle=False)
        num, size = self.manifest.chunks[chunk]["num_moments"], tuple(self.protocol["screen"])
        if array.shape != ((num, *size) if kind == "screens" else (num,)):
            raise damaged(path, "does not hold what the manifest says")
        return array


def split(
    episode: Array, validation: float = 0.1, test: float = 0.2, seed: int = 0
) -> dict[str, Array]:
    """Return the moments of each split, int64, given the episode [n] of every moment. Episodes stay
    whole, for neighbouring frames look alike; each split gets one at least, and else about its
    share of the moments. Raises Mistake where there are fewer than three episodes."""
    numbers, lengths = np.unique(episode, return_counts=True)
    if len(numbers) < 3:
        raise Mistake(
            f"{len(numbers)} recorded episodes cannot be split into training, validation and test:"
            " record more steps"
        )
    order = np.random.default_rng([*b"split", seed]).permutation(len(numbers))
    before = np.cumsum(lengths[order]) - lengths[order]  # moments in the episodes ahead in the row
    num_test = max(int((before < test * len(episode)).sum()), 1)
    num_validation = max(int((before < (test + validation) * len(episode)).sum()) - num_test, 1)
    num_test = min(num_test, len(numbers) - 2)
    num_validation = min(num_validation, len(numbers) - num_test - 1)
    ends = [num_test, num_test + num_validation]
    parts = dict(zip(("test", "validation", "train"), np.split(numbers[order], ends), strict=True))
    return {
        name: np.flatnonzero(np.isin(episode, parts[name]))
        for name in ("train", "validation", "test")
    }


def damaged(path: Path, how: str) -> Damaged:
    return Damaged(
        f"{path} {how}: remove the folder {path.parent} and record the frames anew with"
        " `rlplay collect-frames`"
    )


def write_array(path: Path, array: Array) -> dict[str, Any]:
    """Write an .npy file whole; return its size and checksum."""
    write(path, lambda file: np.save(file, array, allow_pickle=False))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size": path.stat().st_size, "sha256": digest}


def write(path: Path, fill: Any) -> None:
    """Write a file under another name, bring it to the disk, and give it its own."""
    temporary = path.with_name(f".{path.name}")
    file: BinaryIO
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
