"""The published settings of every Pathfinder size, as data: a new size is a row. 512 is 256 scaled by two."""

from __future__ import annotations

from dataclasses import dataclass, replace

CONTOUR_LENGTH = 14
"""Paddles of the task's contours. Those of 6 and 9 are published, too, but no accuracies of them."""
SHORTEST, LONGEST = 3, 14
"""Bounds of the contours to generate: distractors need a paddle; longer ones hardly fit into the smaller pictures."""


@dataclass(frozen=True)
class Settings:
    """How the pictures of one size are drawn; lengths are in pixels.

    Attributes:
        size: side S of the picture; the sequence has S * S pixels.
        margins: free space around a paddle; one of them is drawn for each picture.
        seed_distance: distance between the origins of the two target snakes.
        marker_radius: radius of the two discs.
        thickness: width of a paddle.
        continuity: how straight snakes run; a turn by dtheta weighs cos(min(continuity * dtheta, pi/2))^2.
        distractor_paddles: paddles that the distractor snakes share.
        target_contrast: brightness of the target snakes' paddles, relative to a marker's.
        distractor_contrast: the same for the distractors.
        paddle_length: length of a paddle.
        padding: width of the border that paddles keep out of.
        contour_length: paddles of a target snake.
        antialias: paddles and markers are drawn this many times larger and scaled down.
    """

    size: int
    margins: tuple[int, ...]
    seed_distance: int
    marker_radius: float
    thickness: float
    continuity: float
    distractor_paddles: int
    target_contrast: float
    distractor_contrast: float
    paddle_length: int = 5
    padding: int = 1
    contour_length: int = CONTOUR_LENGTH
    antialias: int = 2

    @property
    def distractor_length(self) -> int:
        """Paddles of a distractor snake."""
        return self.contour_length // 3

    @property
    def n_distractors(self) -> int:
        """Number of distractor snakes."""
        return self.distractor_paddles // self.distractor_length


SETTINGS = {
    row.size: row
    for row in (
        # The published snake contrast is 2 and its paddle contrast .75: only target snakes get the product.
        Settings(32, (1,), 7, 1.5, 0.5, 1.0, 20, 2 * 0.75, 2.0, paddle_length=2),
        Settings(64, (1,), 12, 2.5, 1.0, 1.8, 22, 0.8, 0.8),
        Settings(128, (2, 3), 20, 3.0, 1.5, 1.8, 35, 0.9, 0.9),
        Settings(256, (3,), 27, 5.0, 2.0, 1.8, 30, 1.0, 1.0, padding=22),
        # Not published: every length of 256, twice.
        Settings(512, (6,), 54, 10.0, 4.0, 1.8, 30, 1.0, 1.0, paddle_length=10, padding=44),
    )
}
"""Settings by size. Quotients are whole numbers: the published code ran where ``/`` divides integers so."""


def settings_of(size: int, contour_length: int) -> Settings:
    """The settings of a size with another length of its target snakes, and of the distractors by the same rule.

    >>> easy = settings_of(32, 6)
    >>> easy.contour_length, easy.distractor_length, easy.n_distractors
    (6, 2, 10)
    """
    return replace(SETTINGS[size], contour_length=contour_length)
