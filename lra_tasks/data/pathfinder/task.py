"""The Pathfinder task at 32 x 32 and larger: pathfinder32, pathfinder64, pathx (128), path256 and path512.

========= =============================================================================================================
source    generated here with the semantics of the published code (``snakes``), or the official files
          (``official_dir``); none of 512 x 512 is published: it follows 256 x 256 with every length doubled
length    1024, 4096, 16,384, 65,536 or 262,144: the pixels row by row
input     1 channel in [-1, 1]: pixel / 255, less 0.5, over 0.5
classes   2: whether the two discs mark the ends of one dashed contour; a fair coin
sizes     200,000 pictures, 160,000 / 20,000 / 20,000; on disk a byte a pixel (128: 3.3 GB, 512: 52 GB)
metric    accuracy, chance 50 %
protocol  contours of 14 paddles (the hardest level), as in the Long Range Arena; ``contour_length`` gives the easier
          ones of the release (6 and 9) and of the generator, to begin training with. The Arena's code takes the first
          80 %, next 10 % and last 10 % of the files (``split="first"``); S4's takes a random permutation seeded with
          42 (``split="random"``, the default). The test sets differ: numbers of the two are not strictly comparable
========= =============================================================================================================

References:
    Linsley, Kim, Veerabadran, Windolf, Serre, Learning long-range spatial dependencies with horizontal gated recurrent
    units, arXiv:1805.08315.
    Tay et al., Long Range Arena: A Benchmark for Efficient Transformers, arXiv:2011.04006.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from longconv._checks import check_choice, check_int
from lra_tasks.data.base import Sample, Task, TaskInfo, fractions, marks, official_folder
from lra_tasks.data.errors import DataError
from lra_tasks.data.journal import Journal
from lra_tasks.data.official import compare_size
from lra_tasks.data.parallel import check_processes, cut
from lra_tasks.data.pathfinder.draw import draw_chunk
from lra_tasks.data.pathfinder.official import SIZES, Entry, check_length, find_release, read_entries, read_pictures
from lra_tasks.data.pathfinder.paddles import paddles
from lra_tasks.data.pathfinder.settings import CONTOUR_LENGTH, LONGEST, SETTINGS, SHORTEST
from lra_tasks.data.pixels import Pixels

log = logging.getLogger(__name__)

A = TypeVar("A")

SPLIT_SEED = 42
_CHUNK = {32: 500, 64: 50, 128: 100, 256: 25, 512: 5}
"""Pictures a chunk, by size."""
_MIDDLE = (0.5,)
"""Mean and deviation that bring pixels to [-1, 1]."""
_SKIPPED = "skipped.txt"
"""The pictures of a release that could not be read, one a line."""


class Pathfinder32(Task):
    """Pathfinder at 32 x 32 (larger ones derive from it): do the two discs mark the ends of one dashed contour?

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the official release, to read instead of generating.
        n_samples: pictures to generate; divided 80 / 10 / 10 %.
        contour_length: paddles of a target snake, 3 to 14; of the official release 6, 9 or 14. Published accuracies are
            for 14, the hardest.
        split: how the pictures are divided: "random" (a permutation seeded with 42, as S4) or "first" (in order, as the
            Long Range Arena's code).
        data_seed: seed of the generated pictures.
        processes: number of processes that generate or read; None for all cores. The data does not depend on it.
    """

    cache_name = "pathfinder32"
    size: ClassVar[int] = 32
    info: ClassVar[TaskInfo] = TaskInfo(
        name="pathfinder32",
        title="Pathfinder 32 x 32, are two discs on one dashed contour",
        source="generated with the semantics of github.com/drewlinsley/pathfinder, or the official pictures",
        length=1024,
        n_classes=2,
        d_input=1,
        n_tokens=None,
        sizes=(160000, 20000, 20000),
        split="80 / 10 / 10 %, random with seed 42 as S4's, or the first, next and last as the LRA code's",
        chance=0.5,
        protocol="Long Range Arena (arXiv:2011.04006), contours of 14 paddles; pixels in [-1, 1] as S4",
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        n_samples: int = 200000,
        contour_length: int = CONTOUR_LENGTH,
        split: str = "random",
        data_seed: int = 0,
        processes: int | None = None,
    ) -> None:
        super().__init__(data_dir, batch_size, num_workers, seed)
        self.official_dir = official_folder(official_dir)
        self.n_samples = check_int("n_samples", n_samples, least=10)
        self.contour_length = check_int("contour_length", contour_length, least=SHORTEST)
        if self.contour_length > LONGEST:
            raise ValueError(f"contour_length is {self.contour_length}, expected an integer <= {LONGEST}")
        if self.official_dir is not None:
            check_length(self.contour_length, self.official_dir)
        self.split = check_choice("split", split, ("random", "first"))
        self.data_seed = check_int("data_seed", data_seed, least=0)
        self.processes = check_processes(processes)

    def parameters(self) -> dict[str, Any]:
        """The generator's options and seed, or the folder of the official files; both splits share one cache."""
        easier = {"contour_length": self.contour_length} if self.contour_length != CONTOUR_LENGTH else {}
        if self.official_dir is None:
            generated = {"n": self.n_samples, "seed": self.data_seed, **easier}
            return {"version": 1, "size": self.size, "generated": generated}
        return {"version": 2, "size": self.size, "official": str(self.official_dir), **easier}

    def source(self) -> Any:
        """Names, sizes and times of the official metadata."""
        if self.official_dir is None:
            return None
        with suppress(DataError):
            release = find_release(self.official_dir, self.size, self.contour_length)
            return marks(sorted((release / "metadata").glob("*.npy")))

    def build(self, folder: Path) -> None:
        """Generate or read, and write one array of pictures and one of labels."""
        if self.official_dir is None:
            self._generate(folder)
        else:
            release = find_release(self.official_dir, self.size, self.contour_length)
            entries = read_entries(release)
            if self.size in SIZES:
                compare_size(release, len(entries), sum(self.info.sizes))
            self._read(folder, entries)

    def load(self, folder: Path) -> dict[str, Dataset[Sample]]:
        """The three splits of the memory-mapped pictures; how many were skipped when they were read is told again."""
        skipped = folder / _SKIPPED
        if skipped.is_file() and (n_skipped := len(skipped.read_text().splitlines())):
            log.warning("%d pictures of the release were skipped, listed in %s", n_skipped, skipped)
        labels = np.load(folder / "labels.npy")
        n = len(labels)
        order = np.arange(n)
        if self.split == "random":
            order = torch.randperm(n, generator=torch.Generator().manual_seed(SPLIT_SEED)).numpy()
        train, val, _ = fractions(n, 0.1, 0.1)
        parts = {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}
        return {
            split: Pixels(folder / "images.npy", labels, chosen, _MIDDLE, _MIDDLE) for split, chosen in parts.items()
        }

    def _generate(self, folder: Path) -> None:
        for margin in SETTINGS[self.size].margins:
            paddles(self.size, margin)  # tables that forked processes then share
        draw = partial(_draw, self.size, _CHUNK[self.size], self.data_seed, self.contour_length)
        self._write(folder, draw, range(self.n_samples), "drawing")

    def _read(self, folder: Path, entries: list[Entry]) -> None:
        """Read the pictures; unusable ones are left out, counted and named. Half of all or more of them is an error."""
        skipped = self._write(folder, partial(read_pictures, self.size), entries, "reading")
        if skipped:
            listed = "\n  ".join(skipped[:20] + [f"... and {len(skipped) - 20} more"] * (len(skipped) > 20))
            log.warning("%d of %d pictures were skipped:\n  %s", len(skipped), len(entries), listed)
        read = len(entries) - len(skipped)
        if read < 10 or len(skipped) >= len(entries) / 2:
            first = f" (the first: {skipped[0]})" if skipped else ""
            raise DataError(f"only {read} of {len(entries)} pictures can be read{first}: unpack the release again")
        (folder / _SKIPPED).write_text("".join(line + "\n" for line in skipped))

    def _write(
        self,
        folder: Path,
        make: Callable[[Sequence[A]], tuple[np.ndarray, np.ndarray, list[str]]],
        items: Sequence[A],
        doing: str,
    ) -> list[str]:
        """Write the pictures and labels of all items; what was said of them is given back."""
        size = _CHUNK[self.size]
        arrays: dict[str, Any] = {"images": ((self.size, self.size), np.uint8), "labels": ((), np.uint8)}
        with (
            Journal(folder, arrays, size) as journal,
            closing(journal.resume(make, cut(items, size), self.processes, f"{self.info.name}: {doing}")) as made,
        ):
            for _, (images, labels, remarks) in made:
                journal.append({"images": images, "labels": labels}, remarks)
        return journal.remarks


def _draw(
    size: int, n: int, seed: int, contour_length: int, numbers: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The pictures of these numbers, of the chunk of ``n`` that begins with them."""
    images, labels = draw_chunk(size, n, seed, numbers[0] // n, contour_length)
    return images[: len(numbers)], labels[: len(numbers)], []


class Pathfinder64(Pathfinder32):
    """Pathfinder at 64 x 64: L = 4096."""

    cache_name = "pathfinder64"
    size = 64
    info: ClassVar[TaskInfo] = replace(
        Pathfinder32.info,
        name="pathfinder64",
        title="Pathfinder 64 x 64",
        length=4096,
    )


class PathX(Pathfinder32):
    """Path-X, Pathfinder at 128 x 128: L = 16,384."""

    cache_name = "pathfinder128"
    size = 128
    info: ClassVar[TaskInfo] = replace(
        Pathfinder32.info, name="pathx", title="Path-X: Pathfinder 128 x 128", length=16384
    )


class Path256(Pathfinder32):
    """Path-256, Pathfinder at 256 x 256: L = 65,536."""

    cache_name = "pathfinder256"
    size = 256
    info: ClassVar[TaskInfo] = replace(
        Pathfinder32.info, name="path256", title="Path-256: Pathfinder 256 x 256", length=65536
    )


class Path512(Pathfinder32):
    """Path-512, Pathfinder at 512 x 512 by the settings of 256 with every length doubled: L = 262,144."""

    cache_name = "pathfinder512"
    size = 512
    info: ClassVar[TaskInfo] = replace(
        Pathfinder32.info,
        name="path512",
        title="Path-512: Pathfinder 512 x 512",
        source="generated by the settings of 256 x 256 with every length doubled; none is published",
        length=262144,
        protocol="none is published; contours of 14 paddles, pixels in [-1, 1] as at the other sizes",
    )
