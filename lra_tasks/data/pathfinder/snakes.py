"""Growing snakes, many pictures at once.

Two target snakes start ``seed_distance`` apart and grow in turn, one paddle each; a picture whose snakes meet a dead
end is thrown away (at size 32 about 49 in 50 are). Then distractor snakes are tried one after the other, each five
times. A paddle is chosen among the pixels around the pivot by straightness and free room, and has to fit beside what is
taken already; a snake's newest paddle takes its room only when the next one is placed, so that neighbours may touch.

Shapes: n pictures; a paddle is a row (direction, y, x) of int64, direction as in ``paddles``, -1 for none.

References:
    Linsley, Kim, Veerabadran, Windolf, Serre, Learning long-range spatial dependencies with horizontal gated recurrent
    units, arXiv:1805.08315.
    Tay et al., Long Range Arena: A Benchmark for Efficient Transformers, arXiv:2011.04006.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lra_tasks.data.pathfinder.paddles import N_SEEDS, Paddles, free_places, move, paddles
from lra_tasks.data.pathfinder.settings import CONTOUR_LENGTH, Settings, settings_of

_TRIES = 3
"""Attempts at placing one paddle."""
_SNAKE_TRIES = 5
"""Attempts at one distractor snake."""
_TAKEN = 0.3 * 255
"""A pixel whose mask is above this has no room for a first paddle."""
_OVERLAP = 1.8 * 255
"""A later paddle does not fit where its mask and the picture's add up to this."""
_CROWDED = 0.01
"""Below this fraction of free pixels no further snake is tried."""
_BATCH = (64, 1024)
"""Least and most attempts at target snakes at once."""
_GUESSES = 16
"""Random places tried for a first paddle before all the free ones are listed."""


@dataclass
class Scenes:
    """What n pictures show.

    Attributes:
        targets: (n, 2, contour_length, 3), the paddles of the two target snakes.
        distractors: (n, n_distractors, distractor_length, 3), direction -1 where there was no room for a snake.
        labels: (n,), 1 where both markers are on one snake.
        marked: (n, 2): the snake whose origin is marked, the snake whose far end is marked.
    """

    targets: np.ndarray
    distractors: np.ndarray
    labels: np.ndarray
    marked: np.ndarray

    @property
    def markers(self) -> np.ndarray:
        """Centres (n, 2, 2) of the two markers as (y, x).

        First paddles are placed by their origin, later ones by their far end, so these are the ends of a snake.
        """
        rows = np.arange(len(self.labels))
        origin = self.targets[rows, self.marked[:, 0], 0, 1:]
        return np.stack([origin, self.targets[rows, self.marked[:, 1], -1, 1:]], axis=1)


def grow_scenes(
    size: int, n: int, random: np.random.Generator, contour_length: int = CONTOUR_LENGTH
) -> tuple[Scenes, np.ndarray]:
    """The geometry of ``n`` pictures of one size, and the margin (n,) of each."""
    settings = settings_of(size, contour_length)
    margins = random.choice(settings.margins, n)
    targets = np.full((n, 2, settings.contour_length, 3), -1)
    distractors = np.full((n, settings.n_distractors, settings.distractor_length, 3), -1)
    for margin in settings.margins:
        chosen = np.flatnonzero(margins == margin)
        if len(chosen):
            targets[chosen], distractors[chosen] = _grow(settings, paddles(size, margin), len(chosen), random)
    labels = random.integers(2, size=n)
    origin = random.integers(2, size=n)
    return Scenes(targets, distractors, labels, np.stack([origin, origin ^ 1 ^ labels], axis=1)), margins


def _grow(settings: Settings, tables: Paddles, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Targets and distractors of ``n`` pictures of one margin; as many attempts as it takes."""
    targets = np.empty((0, 2, settings.contour_length, 3), np.int64)
    attempts = 0
    while len(targets) < n:
        rate = (len(targets) + 1) / (attempts + 100)
        batch = int(np.clip((n - len(targets)) / rate, *_BATCH))
        targets = np.concatenate([targets, _Board(settings, tables, batch, random).grow_targets()])
        attempts += batch
    return targets[:n], _Board(settings, tables, n, random).grow_distractors(targets[:n])


class _Board:
    """The masks of a batch of pictures, each on a canvas wide enough that no stamp leaves it, flattened."""

    def __init__(self, settings: Settings, tables: Paddles, n: int, random: np.random.Generator) -> None:
        self.settings, self.tables, self.random, self.n = settings, tables, random, n
        self.pad = 2 * tables.radius + 2
        self.width = settings.size + 2 * self.pad
        self.area = self.width**2
        inside = np.zeros((self.width, self.width), np.uint8)
        inside[self.pad : -self.pad, self.pad : -self.pad] = 1
        border = inside * np.uint8(255)
        rim = self.pad + settings.padding
        border[rim:-rim, rim:-rim] = 0
        self.inside = inside.ravel()
        self.mask = np.tile(border.ravel(), n)
        self._paddle_room = self._flat(tables.room)
        self._ends = self._flat(tables.reach)
        self._disc = self._flat(tables.disc)
        self._room = self._flat(tables.seed_room)

    def grow_targets(self) -> np.ndarray:
        """Grow two snakes in every picture, a paddle each in turn; the m whole pairs (m, 2, contour_length, 3)."""
        alive, seeds = self._seed_targets()
        targets = np.full((self.n, 2, self.settings.contour_length, 3), -1)
        targets[alive, :, 0] = seeds
        snakes = [_Snakes(self, seeds[:, snake]) for snake in range(2)]
        for step in range(1, self.settings.contour_length):
            for snake in range(2):
                placed, fits = snakes[snake].extend(alive)
                alive = alive[fits]
                snakes[1 - snake].keep(fits)
                targets[alive, snake, step] = placed[fits]
        return targets[alive]

    def grow_distractors(self, targets: np.ndarray) -> np.ndarray:
        """Snakes (n, n_distractors, distractor_length, 3) beside the targets of n pictures; -1 where none fits."""
        # As published, the last paddle of the first snake takes no room from the distractors.
        for chain in (targets[:, 0, :-1], targets[:, 1]):
            for placed in chain.swapaxes(0, 1):
                self.burn(np.arange(self.n), placed)
        settings = self.settings
        result = np.full((self.n, settings.n_distractors, settings.distractor_length, 3), -1)
        for snake in range(settings.n_distractors):
            missing = np.arange(self.n)
            for _ in range(_SNAKE_TRIES):
                chains, found = self._grow_distractor(missing)
                result[missing[found], snake] = chains[found]
                missing = missing[~found]
                if not len(missing):
                    break
        return result

    def burn(self, pictures: np.ndarray, placed: np.ndarray) -> None:
        """Take the room of the paddles ``placed`` (n, 3)."""
        where = self._at(placed[:, 1:])[:, None] + self._paddle_room[placed[:, 0]]
        taken = self.tables.room_taken[placed[:, 0]] * self.inside[where]
        where += pictures[:, None] * self.area
        self.mask[where] = np.maximum(self.mask[where], taken)

    def successors(self, pictures: np.ndarray, direction: np.ndarray, pivot: np.ndarray) -> np.ndarray:
        """Cumulated probabilities (n, M) of the next paddle's ``choices``; all zero at a dead end."""
        where = self._at(pivot)[:, None] + self._ends[self.tables.choices[direction]]
        weights = self.tables.turns[direction] * self.inside[where]
        where += pictures[:, None] * self.area
        blocked = np.zeros(where.shape, np.uint8)
        for tap in self._disc:
            np.maximum(blocked, self.mask[where + tap], out=blocked)
        weights *= 1 - blocked / 255
        total = weights.sum(axis=1, keepdims=True)
        return np.cumsum(np.where(total < 1e-4, 0, weights / np.maximum(total, 1e-4)), axis=1)

    def fits(self, pictures: np.ndarray, placed: np.ndarray) -> np.ndarray:
        """Whether the paddles ``placed`` (n, 3) have room beside what is taken."""
        where = (self._at(placed[:, 1:]) + pictures * self.area)[:, None] + self._paddle_room[placed[:, 0]]
        return (self.mask[where] + self.tables.room_taken[placed[:, 0]].astype(np.int16)).max(axis=1) < _OVERLAP

    def _at(self, pixels: np.ndarray) -> np.ndarray:
        return self._flat(pixels + self.pad)

    def _flat(self, pixels: np.ndarray) -> np.ndarray:
        return pixels[..., 0] * self.width + pixels[..., 1]

    def _seed_targets(self) -> tuple[np.ndarray, np.ndarray]:
        """First paddles (m, 2, 3) of both snakes, and the m pictures where both were found."""
        seeds = np.full((self.n, 2, 3), -1)
        first = np.arange(self.n)
        for _ in range(_TRIES):
            directions = self.random.integers(N_SEEDS, size=len(first))
            places, found = self.tables.draw_origins(directions, self.random)
            first = self._settle(seeds[:, 0], first[found], directions[found], places[found])
        second = alive = np.flatnonzero(seeds[:, 0, 0] >= 0)
        for _ in range(_TRIES):
            directions = self.random.integers(N_SEEDS, size=len(second))
            angles = np.deg2rad(self.random.integers(360, size=len(second)))
            shift = self.settings.seed_distance * np.stack([np.sin(angles), np.cos(angles)], axis=1)
            places = np.round(seeds[second, 0, 1:] + shift).astype(np.int64)
            second = self._settle(seeds[:, 1], second, directions, places)
        alive = alive[seeds[alive, 1, 0] >= 0]
        return alive, seeds[alive]

    def _settle(self, seeds: np.ndarray, rows: np.ndarray, directions: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Write the first paddles that lie in the picture into ``seeds`` at ``rows``; the rows left without one."""
        inside = self._seed_inside(directions, places)
        seeds[rows[inside]] = np.column_stack([directions[inside], places[inside]])
        return rows[~inside]

    def _seed_inside(self, direction: np.ndarray, place: np.ndarray) -> np.ndarray:
        """Whether head and pivot of first paddles lie in the picture."""
        both = np.concatenate(self.tables.seed_points(direction, place), axis=1)
        inside: np.ndarray = np.all((both >= 0) & (both < self.settings.size), axis=1)
        return inside

    def _grow_distractor(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One attempt at a snake in every picture: chains (n, distractor_length, 3) and whether each is whole.

        Where it is not, the picture's mask is as it was before.
        """
        canvases = self.mask.reshape(self.n, self.area)
        before = canvases[pictures]
        chains = np.full((len(pictures), self.settings.distractor_length, 3), -1)
        chains[:, 0] = self._seed_distractors(pictures)
        alive = np.flatnonzero(chains[:, 0, 0] >= 0)
        snake = _Snakes(self, chains[alive, 0])
        for step in range(1, self.settings.distractor_length):
            placed, fits = snake.extend(pictures[alive])
            alive = alive[fits]
            chains[alive, step] = placed[fits]
        self.burn(pictures[alive], chains[alive, -1])
        whole = np.zeros(len(pictures), bool)
        whole[alive] = True
        canvases[pictures[~whole]] = before[~whole]
        return chains, whole

    def _seed_distractors(self, pictures: np.ndarray) -> np.ndarray:
        """First paddles (n, 3), each at a free place drawn uniformly; -1 where there is none."""
        result = np.full((len(pictures), 3), -1)
        canvases = self.mask.reshape(self.n, self.area)
        free = ((canvases[pictures] <= _TAKEN) & (self.inside > 0)).sum(axis=1)
        open_ = np.flatnonzero(free >= _CROWDED * self.settings.size**2)
        for _ in range(_TRIES):
            directions = self.random.integers(N_SEEDS, size=len(open_))
            places, found = self._free_places(pictures[open_], directions)
            open_ = self._settle(result, open_[found], directions[found], places[found])
        return result

    def _free_places(self, pictures: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A uniform draw (n, 2) among the places where a first paddle has room, and whether there is any.

        The first hit of uniform guesses is such a draw; where none hits, all the places are listed.
        """
        n, size = len(pictures), self.settings.size
        guesses = self.random.integers(size, size=(n, _GUESSES, 2))
        where = self._at(guesses) + pictures[:, None] * self.area
        hits = (self.mask[where[:, :, None] + self._room[directions][:, None]] <= _TAKEN).all(axis=2)
        found = hits.any(axis=1)
        places = guesses[np.arange(n), hits.argmax(axis=1)]
        for row in np.flatnonzero(~found):
            start = pictures[row] * self.area
            taken = self.mask[start : start + self.area].reshape(self.width, self.width) > _TAKEN
            listed = free_places(taken, self.pad, self.tables.seed_room[directions[row]])
            if len(listed):
                places[row], found[row] = listed[self.random.integers(len(listed))], True
        return places, found


class _Snakes:
    """One growing snake in each of a set of pictures: its newest paddle and where that turns."""

    def __init__(self, board: _Board, seeds: np.ndarray) -> None:
        self.board = board
        self.newest = seeds
        _, self.pivot = board.tables.seed_points(seeds[:, 0], seeds[:, 1:])

    def keep(self, which: np.ndarray) -> None:
        """Forget all but these pictures."""
        self.newest, self.pivot = self.newest[which], self.pivot[which]

    def extend(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add a paddle to every snake: the paddles (n, 3) and whether each fits; the snakes that fail are dropped."""
        board, tables = self.board, self.board.tables
        pivot = move(self.pivot, tables.next_pivot[self.newest[:, 0]])
        chances = board.successors(pictures, self.newest[:, 0], pivot)
        placed = np.full((len(pictures), 3), -1)
        fits = np.zeros(len(pictures), bool)
        open_ = np.flatnonzero(chances[:, -1] > 0)
        for _ in range(_TRIES):
            turn = (chances[open_] > board.random.random((len(open_), 1))).argmax(axis=1)
            turn = tables.choices[self.newest[open_, 0], turn]
            placed[open_] = np.column_stack([N_SEEDS + turn, pivot[open_] + tables.reach[turn]])
            fits[open_] = board.fits(pictures[open_], placed[open_])
            open_ = open_[~fits[open_]]
        board.burn(pictures[fits], self.newest[fits])
        self.newest, self.pivot = placed[fits], pivot[fits]
        return placed, fits
