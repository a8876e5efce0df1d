"""The exact value of any position of Connect Four, by alpha-beta search.

After Pascal Pons, "Solving Connect 4" (2015), and Allis (1988): boards are bits of a word, moves
that lose at once are never tried, those that make most threats are tried first, what was found is
kept in a table, and a value is found by asking again and again whether it is above a number. Values
of the first plies, which would take minutes, are read from connect_four_openings.csv.

A value is a score for the player who moves: 0 for a draw, else the sooner the end, the larger; the
winner counts the stones that he has still to play, the winning one too (a win with his last stone
is 1, with the one before it 2), and the loser the same below zero. Cells are as in connect_four.py:
column c from bit 7 c upwards, the seventh always empty.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numba import njit

from rlplay.core import Array

WIDTH, HEIGHT, PITCH = 7, 6, 7
MANY_STONES = 12  # with so many, a value takes a few hundredths of a second
CELLS = WIDTH * HEIGHT
ONE, BYTE = np.uint64(1), np.uint64(8)
COLUMN = np.uint64((1 << HEIGHT) - 1)
BOTTOM = np.uint64(sum(1 << c * PITCH for c in range(WIDTH)))
FULL = BOTTOM * COLUMN
CENTRE_FIRST = np.array([COLUMN << np.uint64(c * PITCH) for c in (3, 2, 4, 1, 5, 0, 6)])
NUM_MIRRORED = 12  # stones up to which a position and its mirror image are looked up as one
TABLE_BITS = 22  # 4 million positions, 32 MiB
HASH = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio (Knuth 1973)
UPPER, LOWER = 64, 192  # what is added to a bound, to tell its kind and keep it above 0
OPENINGS = Path(__file__).with_name("connect_four_openings.csv")


def solve(own: Array, taken: Array) -> Array:
    """Return the value of each move for the player who moves, [N, 7]; nan where a column is full.

    `own` [N] uint64 are the stones of who moves, `taken` [N] uint64 all stones; nobody has won."""
    return move_values(own, taken, *openings(), memory(TABLE_BITS))


@cache
def memory(bits: int) -> Array:
    """Return a table for 2^bits positions, all empty, to be kept for the next ones."""
    return np.zeros(1 << bits, np.uint64)


@cache
def openings(path: Path = OPENINGS) -> tuple[Array, Array]:
    """Return the positions whose values are on file: their keys [K] uint64, rising, and the values
    [K] int64."""
    keys, values = np.loadtxt(path, np.int64, delimiter=",", skiprows=1, ndmin=2).T.copy()
    return keys.astype(np.uint64), values


def stones(key: int) -> tuple[np.uint64, np.uint64]:
    """Return the stones of who moves, and all stones, of the position with this key: in each
    column the key has the first ones, and above all stones a bit."""
    own = taken = 0
    for c in range(WIDTH):
        column = key >> c * PITCH & 2 * (1 << HEIGHT) - 1
        top = 1 << column.bit_length() - 1
        own |= (column - top) << c * PITCH
        taken |= (top - 1) << c * PITCH
    return np.uint64(own), np.uint64(taken)


@njit(cache=True)
def move_values(own, taken, keys, values, table):
    # [N] uint64, [N] uint64, [K] uint64, [K] int64 -> [N, 7]
    found = np.full((len(own), WIDTH), np.nan, np.float32)
    for i in range(len(own)):
        num_stones = count(taken[i])
        wins = completing(own[i], taken[i])
        for column in CENTRE_FIRST:
            stone = (taken[i] + BOTTOM) & column
            if not stone:
                continue
            c = count(stone - ONE) // PITCH
            if stone & wins:
                found[i, c] = (CELLS + 1 - num_stones) // 2
                continue
            following = taken[i] | stone
            sought = key(own[i] ^ taken[i], following, num_stones + 1)
            at = np.searchsorted(keys, sought)
            if at < len(keys) and keys[at] == sought:
                found[i, c] = -values[at]
            else:
                found[i, c] = -value(own[i] ^ taken[i], following, table)
    return found


@njit(cache=True)
def quick(own, taken, keys):  # [N] uint64, [N] uint64, [K] uint64 -> [N] bool
    """Return for which positions `move_values` takes no longer than an instant: with each move
    there are many stones then, or somebody has won, or the value is on file."""
    found = np.ones(len(own), np.bool_)
    for i in range(len(own)):
        num_stones = count(taken[i]) + 1
        if num_stones >= MANY_STONES:
            continue
        wins = completing(own[i], taken[i])
        for column in CENTRE_FIRST:
            stone = (taken[i] + BOTTOM) & column & ~wins
            if stone:
                sought = key(own[i] ^ taken[i], taken[i] | stone, num_stones)
                at = np.searchsorted(keys, sought)
                found[i] &= at < len(keys) and keys[at] == sought
    return found


@njit(cache=True, nogil=True)
def value(own, taken, table):  # uint64, uint64, [2^bits] uint64 -> int64
    """Return the value of one position, in which nobody has won. Threads may share a table: what
    they write is one word each."""
    scratch = np.empty((CELLS + 1, WIDTH), np.uint64)  # to sort moves in
    num_stones = count(taken)
    if completing(own, taken) & (taken + BOTTOM):
        return (CELLS + 1 - num_stones) // 2
    low, high = -((CELLS - num_stones) // 2), (CELLS - 1 - num_stones) // 2
    while low < high:
        # Near 0 first: it is far sooner told who wins than when.
        middle = (low + high) // 2
        if middle <= 0 and low // 2 < middle:
            middle = -(-low // 2)
        elif middle >= 0 and high // 2 > middle:
            middle = high // 2
        bound = search(own, taken, num_stones, middle, middle + 1, table, scratch)
        if bound <= middle:
            high = bound
        else:
            low = bound
    return low


@njit(cache=True)
def search(own, taken, num_stones, alpha, beta, table, scratch):
    """Return the value of a position in which the player who moves cannot win at once, if it lies
    between alpha and beta; else a bound on the same side of them."""
    other = own ^ taken
    free = (taken + BOTTOM) & FULL
    threats = completing(other, taken)
    lost = -((CELLS - num_stones) // 2)
    forced = free & threats
    if forced:
        if forced & (forced - ONE):
            return lost
        free = forced
    free &= ~(threats >> ONE)  # playing there would allow a stone on top that wins
    if not free:
        return lost
    if num_stones >= CELLS - 2:
        return 0
    if lost + 1 >= beta:
        return lost + 1
    if (CELLS - 1 - num_stones) // 2 <= alpha:
        return (CELLS - 1 - num_stones) // 2
    if not free & (free - ONE):
        return -search(other, taken | free, num_stones + 1, -beta, -alpha, table, scratch)

    sought = key(own, taken, num_stones)
    slot = (sought * HASH) >> np.uint64(64 - count(np.uint64(len(table) - 1)))
    entry = table[slot]
    if entry >> BYTE == sought:
        bound = int(entry & np.uint64(255))
        if bound >= LOWER - CELLS:
            bound -= LOWER
            if bound >= beta:
                return bound
            alpha = max(alpha, bound)
        else:
            bound -= UPPER
            if bound <= alpha:
                return bound
            beta = min(beta, bound)

    num_moves, moves = 0, scratch[num_stones]
    for column in CENTRE_FIRST:
        stone = free & column
        if stone:
            # By insertion, most threats first; the move and their number share a word.
            made = np.uint64(count(completing(own | stone, taken | stone)))  # below 64
            place = num_moves
            while place > 0 and moves[place - 1] & np.uint64(63) < made:
                moves[place] = moves[place - 1]
                place -= 1
            moves[place] = stone << np.uint64(6) | made
            num_moves += 1
    for i in range(num_moves):
        following = taken | moves[i] >> np.uint64(6)
        bound = -search(other, following, num_stones + 1, -beta, -alpha, table, scratch)
        if bound >= beta:
            table[slot] = sought << BYTE | np.uint64(bound + LOWER)
            return bound
        alpha = max(alpha, bound)
    table[slot] = sought << BYTE | np.uint64(alpha + UPPER)
    return alpha


@njit(cache=True)
def completing(stones, taken):  # uint64, uint64 -> uint64
    """Return the free cells, within reach or not, that would make four of these stones a line."""
    cells = stones << ONE & stones << np.uint64(2) & stones << np.uint64(3)
    for pitch in (np.uint64(PITCH), np.uint64(PITCH - 1), np.uint64(PITCH + 1)):
        twice = pitch + pitch
        pair = stones << pitch & stones << twice
        cells |= pair & stones << twice + pitch | pair & stones >> pitch
        pair = stones >> pitch & stones >> twice
        cells |= pair & stones >> twice + pitch | pair & stones << pitch
    return cells & (FULL ^ taken)


@njit(cache=True)
def key(own, taken, num_stones):  # uint64, uint64, int64 -> uint64
    """Return the number of a position: the stones of who moves, and a bit on top of each column.
    Of few stones, the smaller one of a position and its mirror image."""
    number = own + taken + BOTTOM
    if num_stones > NUM_MIRRORED:
        return number
    image = np.uint64(0)
    for c in range(WIDTH):
        bits = number >> np.uint64(c * PITCH) & np.uint64(127)
        image |= bits << np.uint64((WIDTH - 1 - c) * PITCH)
    return min(number, image)


@njit(cache=True)
def count(cells):  # uint64 -> int64
    """Return the number of bits; compiled, one instruction."""
    number = 0
    while cells:
        cells &= cells - ONE
        number += 1
    return number
