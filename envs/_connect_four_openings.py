"""Computes connect_four_openings.csv: values of positions with few stones, which take long.

    python -m envs._connect_four_openings --plies 4 --minutes 60 --threads 2

First come all with up to so many stones, then those that `rlplay evaluate` asks for. What the file
holds is kept, and what is new is written every minute, so that this can be stopped at any time and
go on another day. One large table (1 GiB) is shared, so that each position helps the next.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import numpy as np

from envs import _connect_four_solver as solver
from envs.connect_four import ConnectFour
from rlplay.accuracy import NUM_BOARDS, positions

TABLE_BITS = 27


def main() -> None:
    words = argparse.ArgumentParser("connect_four_openings")
    words.add_argument("--plies", type=int, default=1, help="all positions of so many stones")
    words.add_argument("--minutes", type=float, default=15)
    words.add_argument("--threads", type=int, default=1)
    terms = words.parse_args()
    keys, values = solver.openings()
    known = dict(zip(keys.tolist(), values.tolist(), strict=True))
    wanted = dict.fromkeys([*beginnings(terms.plies), *evaluated()])
    table, now = solver.memory(TABLE_BITS), time.monotonic()
    end, saved = now + 60 * terms.minutes, now

    def work(key: int) -> tuple[int, int] | None:
        if time.monotonic() > end:
            return None
        return key, solver.value(*solver.stones(key), table)

    with ThreadPoolExecutor(terms.threads) as pool:
        for done in as_completed([pool.submit(work, key) for key in wanted if key not in known]):
            found = done.result()
            known.update([found] if found else [])
            if time.monotonic() > saved + 60:
                saved = time.monotonic()
                save(known)
    save(known)
    print(f"{len(known.keys() & wanted.keys())} of {len(wanted)} positions are known")


def evaluated() -> list[int]:
    """Return what the boards of `rlplay evaluate` lead to, those with most stones first."""
    board = positions(ConnectFour(), NUM_BOARDS)
    taken = board["stones"][:, 0] | board["stones"][:, 1]
    own = board["stones"][np.arange(len(board)), board["player"]]
    keys = {key for one in zip(own, taken, strict=True) for key in following(*one)}
    number = {key: solver.count(solver.stones(key)[1]) for key in keys}
    few = [key for key in sorted(keys) if number[key] < solver.MANY_STONES]
    return sorted(few, key=lambda key: -number[key])


def beginnings(plies: int) -> list[int]:
    """Return all positions of one stone to so many in which nobody has won."""
    ply, found = {solver.key(np.uint64(0), np.uint64(0), 0)}, []
    for _ in range(plies):
        ply = {k for key in ply for k in following(*solver.stones(key))}
        found += sorted(ply)
    return found


def following(own: np.uint64, taken: np.uint64) -> list[int]:
    """Return the positions after every move with which nobody wins."""
    keys, wins = [], np.uint64(solver.completing(own, taken))
    for column in solver.CENTRE_FIRST:
        if stone := (taken + solver.BOTTOM) & column & ~wins:
            number = solver.count(taken | stone)
            keys.append(solver.key(own ^ taken, taken | stone, number))
    return keys


def save(known: dict[int, int]) -> None:
    rows = [f"{key},{value}\n" for key, value in sorted(known.items())]
    partial = solver.OPENINGS.with_suffix(".partial")
    partial.write_text("key,value\n" + "".join(rows))
    partial.replace(solver.OPENINGS)


if __name__ == "__main__":
    main()
