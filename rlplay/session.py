"""What every training shares: an end in good order, and the table on the terminal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np

from rlplay.core import NonFinite

PAUSE = 0.5
"""Seconds between two lines on the terminal, at least; the log misses none."""

Column = tuple[str, str, str]
"""Its title, the metric in it, and how that is written."""


class Interrupted(BaseException):
    """A signal asked the training to end."""


class Interrupt:
    """Ctrl-C and SIGTERM. The first asks for an orderly end: in the middle of `breakable` work by
    raising Interrupted, else when the training next looks at `signal`. The second ends the process
    on the spot."""

    def __init__(self) -> None:
        self.signal = 0
        self.inside_breakable = False

    @contextmanager
    def breakable(self) -> Iterator[None]:
        self.inside_breakable = True
        try:
            if self.signal:
                raise Interrupted
            yield
        finally:
            self.inside_breakable = False

    def __enter__(self) -> Interrupt:
        kinds = (signal.SIGINT, signal.SIGTERM)
        self.before = [(kind, signal.signal(kind, self.handle)) for kind in kinds]
        return self

    def __exit__(self, *_: object) -> None:
        for kind, handler in self.before:
            signal.signal(kind, handler)

    def handle(self, kind: int, frame: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + kind)
        self.signal = kind
        if self.inside_breakable:
            raise Interrupted


def keep_batch(error: NonFinite, folder: Path) -> str:
    """Write the batch that ended a training into its folder; return the sentence that says so."""
    path = folder / "nonfinite_batch.npz"
    np.savez_compressed(path, allow_pickle=False, **error.batch)
    return f"stopped: {error}; its batch is in {path}"


class Table:
    """The table on the terminal: a line for each log entry, but none sooner than PAUSE seconds
    after the one before, and the last one always."""

    def __init__(
        self,
        announce: Callable[[str], None],
        num_steps: int,
        columns: Sequence[Column],
        always: Collection[str],
    ) -> None:
        """Columns are there as soon as their metric is, those whose titles are in `always` at once.
        The first counts the steps up to `num_steps`, the last one the steps a second."""
        self.announce = announce
        self.num_steps = num_steps
        self.all_columns, self.always = columns, always
        self.columns: list[Column] = []
        self.waiting: dict[str, float] = {}
        self.last = -np.inf  # time of the last line, seconds

    def add(self, metrics: dict[str, float]) -> None:
        """Print the line of a log entry, now or, where the next comes sooner, never."""
        self.waiting = metrics
        if time.perf_counter() - self.last >= PAUSE:
            self.show()

    def close(self) -> None:
        """Print the last line if it was not yet."""
        if self.waiting:
            self.show()

    def show(self) -> None:
        metrics, self.waiting = self.waiting, {}
        self.last = time.perf_counter()
        columns = [c for c in self.all_columns if c[1] in metrics or c[0] in self.always]
        if not {*columns} <= {*self.columns}:  # something new to show
            self.columns = columns
            self.announce("".join(f"{title:>12}" for title, _, _ in columns) + f"{'left':>12}")
        cells = [form.format(metrics[k]) if k in metrics else "-" for _, k, form in self.columns]
        steps, rate = self.all_columns[0][1], self.all_columns[-1][1]
        left = int(max(self.num_steps - metrics[steps], 0) / metrics[rate])
        cells.append(f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}")
        self.announce("".join(f"{cell:>12}" for cell in cells))
