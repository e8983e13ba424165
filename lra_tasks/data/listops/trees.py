"""Random ListOps expressions, many at once: tree shapes level by level, values from the leaves up, tokens by position.

A node at depth d < max_depth is an operator with probability 1/4 and a digit otherwise; at max_depth it is a digit. An
operator (MIN, MAX, MED or SM, equally likely) has 2 to max_args arguments. Its value is the least, the greatest, the
median rounded down to a whole number, or the sum modulo 10. As tokens it is ``[OP``, its arguments and ``X`` (which
closes it), so the length of an expression is 2 an operator and 1 a digit.

References:
    Nangia, Bowman, ListOps: A Diagnostic Dataset for Latent Tree Learning, arXiv:1804.06028.
    Tay et al., Long Range Arena: A Benchmark for Efficient Transformers, arXiv:2011.04006.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

VOCABULARY = ("<pad>", "<unk>", "<eos>", *"0123456789", "[MIN", "[MAX", "[MED", "[SM", "X")
"""Tokens by number: 18."""
PAD, UNKNOWN, EOS, DIGIT, OPERATOR, CLOSE = 0, 1, 2, 3, 13, 17
"""Numbers of the first digit and the first operator among others; both run on from there."""
P_OPERATOR = 0.25


@dataclass
class _Level:
    """The nodes of one depth of many trees, children in the order of their parents.

    Attributes:
        parent: index of each node's parent in the level above.
        symbol: 0..9 for a digit, 10..13 for MIN, MAX, MED, SM.
        starts: index of the first child, in the level below, of each operator.
    """

    parent: np.ndarray
    symbol: np.ndarray
    starts: np.ndarray

    @property
    def operators(self) -> np.ndarray:
        """Indices of the nodes that are operators."""
        return np.flatnonzero(self.symbol >= 10)


def random_expressions(
    random: np.random.Generator, n: int, *, max_depth: int, max_args: int, min_length: int, max_length: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Tokens uint8 (length,) and value of those of ``n`` random expressions with min_length < length < max_length."""
    levels = _grow(random, n, max_depth, max_args)
    lengths = _lengths(levels)
    kept = (lengths[0] > min_length) & (lengths[0] < max_length)
    levels, lengths = _keep(levels, lengths, kept)
    values = _values(levels)
    ends = np.cumsum(lengths[0])
    tokens = _write(levels, lengths, ends - lengths[0])
    for value, end, length in zip(values, ends, lengths[0], strict=True):
        yield tokens[end - length : end], int(value)


def _grow(random: np.random.Generator, n: int, max_depth: int, max_args: int) -> list[_Level]:
    levels: list[_Level] = []
    parent = np.arange(n)
    for depth in range(1, max_depth + 1):
        symbol = random.integers(10, size=len(parent))
        if depth < max_depth:
            operators = np.flatnonzero(random.random(len(parent)) < P_OPERATOR)
            symbol[operators] = 10 + random.integers(4, size=len(operators))
            arity = random.integers(2, max_args + 1, size=len(operators))
        else:
            operators = arity = np.empty(0, np.int64)
        levels.append(_Level(parent, symbol, np.cumsum(arity) - arity))
        parent = np.repeat(operators, arity)
        if not len(parent):
            break
    return levels


def _lengths(levels: list[_Level]) -> list[np.ndarray]:
    """Tokens of every node's subtree, by level."""
    below = np.empty(0, np.int64)
    result: list[np.ndarray] = []
    for level in reversed(levels):
        length = np.ones(len(level.symbol), np.int64)
        if len(level.starts):
            length[level.operators] = 2 + np.add.reduceat(below, level.starts)
        result.append(length)
        below = length
    return result[::-1]


def _keep(levels: list[_Level], lengths: list[np.ndarray], kept: np.ndarray) -> tuple[list[_Level], list[np.ndarray]]:
    """The levels and lengths of the chosen trees alone."""
    fewer: list[_Level] = []
    renumbered = np.arange(len(kept))
    for depth, level in enumerate(levels):
        if depth:
            kept = kept[level.parent]
        symbol = level.symbol[kept]
        arity = np.diff(level.starts, append=len(levels[depth + 1].symbol) if depth + 1 < len(levels) else 0)
        arity = arity[kept[level.operators]]
        fewer.append(_Level(renumbered[level.parent[kept]], symbol, np.cumsum(arity) - arity))
        renumbered = np.cumsum(kept) - 1
        lengths[depth] = lengths[depth][kept]
    return fewer, lengths


def _values(levels: list[_Level]) -> np.ndarray:
    """Values of the roots."""
    below = np.empty(0, np.int64)
    for level in reversed(levels):
        value = level.symbol.copy()
        operators, starts = level.operators, level.starts
        if len(starts):
            sizes = np.diff(starts, append=len(below))
            group = np.repeat(np.arange(len(starts)), sizes)
            # Sorted within each operator's arguments: the least first, the median in the middle, the greatest last.
            ordered = below[np.lexsort((below, group))]
            low, high = ordered[starts + (sizes - 1) // 2], ordered[starts + sizes // 2]
            results = (
                ordered[starts],
                ordered[starts + sizes - 1],
                (low + high) // 2,
                np.add.reduceat(below, starts) % 10,
            )
            value[operators] = np.choose(level.symbol[operators] - 10, results)
        below = value
    return below


def _write(levels: list[_Level], lengths: list[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """All expressions one after the other; ``starts`` is the position of each root."""
    tokens = np.empty(int(lengths[0].sum()), np.uint8)
    position = starts
    for depth, level in enumerate(levels):
        if depth:
            # A node stands after its parent's token and its elder siblings' subtrees.
            before = np.cumsum(lengths[depth]) - lengths[depth]
            first = levels[depth - 1].starts
            sizes = np.diff(first, append=len(before))
            position = position[level.parent] + 1 + before - np.repeat(before[first], sizes)
        tokens[position] = np.where(level.symbol < 10, DIGIT, OPERATOR - 10) + level.symbol
        operators = level.operators
        tokens[position[operators] + lengths[depth][operators] - 1] = CLOSE
    return tokens
