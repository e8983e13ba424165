"""Sequential Fashion-MNIST.

========= =============================================================================================================
source    Fashion-MNIST (MIT), its four ``*-ubyte.gz`` files (layout: ``idx``), in ``official_dir``, in its folder
          ``fashion-mnist``, or where Debian's package ``dataset-fashion-mnist`` puts them
length    784: the 28 x 28 pixels row by row
input     1 channel, pixel / 255, not centred
classes   10 kinds of clothing, chance 10 %; metric: accuracy
sizes     54,000 / 6,000 / 10,000: the test files are the test set, 6,000 of the 60,000 others are held out
protocol  that of sequential MNIST; the tenth held out is the end of a permutation seeded with 42, as S4 splits MNIST
========= =============================================================================================================

References:
    Xiao, Rasul, Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms,
    arXiv:1708.07747.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from torch.utils.data import Dataset

from lra_tasks.data.base import Sample, TaskInfo
from lra_tasks.data.idx import find_idx, write_parts
from lra_tasks.data.official import OfficialTask
from lra_tasks.data.pixels import load_parts

PACKAGED = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package puts the files."""
_GET = (
    "`apt-get install dataset-fashion-mnist`, or download them from github.com/zalandoresearch/fashion-mnist and name "
    "their folder with --data.official_dir"
)


class Fashion(OfficialTask):
    """Fashion-MNIST pixel by pixel, row by row: L = 784, one channel in [0, 1], 10 classes, 54,000 / 6,000 / 10,000.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder of the four files; None looks in data_dir and where Debian's package puts them.
    """

    cache_name = "fashion"
    info: ClassVar[TaskInfo] = TaskInfo(
        name="fashion",
        title="sequential Fashion-MNIST, pixel by pixel",
        source="Fashion-MNIST (MIT): the Debian package dataset-fashion-mnist, or the official *-ubyte.gz",
        length=784,
        n_classes=10,
        d_input=1,
        n_tokens=None,
        sizes=(54000, 6000, 10000),
        split="the official test set; of the training set a tenth held out, random with seed 42",
        chance=0.1,
        protocol="that of sequential MNIST (arXiv:1504.00941); pixels in [0, 1], row by row",
    )

    def files(self) -> list[Path]:
        """Images and labels of the two official parts."""
        packaged = [PACKAGED] if self.official_dir is None else []
        return find_idx([self.read_from, self.read_from / "fashion-mnist", *packaged], _GET)

    def build(self, folder: Path) -> None:
        """Write the pictures and labels of the two official parts."""
        write_parts(self.files(), folder)

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped pictures."""
        return load_parts(folder)
