"""Retrieval: does one paper cite the other, both read character by character.

========= =============================================================================================================
source    pairs from the ACL Anthology Network in the Long Range Arena's release, in ``official_dir`` or data_dir:
          ``tsv_data/new_aan_pairs.{train,eval,test}.tsv``, no header, five columns: label (0.0 or 1.0), the two papers'
          numbers and their two texts
length    4000 at most for each of the two, ``<eos>`` among them, padded to the longest of a batch
input     tokens (B, 2, L): characters (``level="char"``) or bytes of UTF-8 (``level="byte"``); vocabulary of 259 for
          both, specials included (98 are in use)
classes   2: cited or not; chance 50 %; metric: accuracy
sizes     147,086 / 18,090 / 17,437 pairs: the files train, eval and test
protocol  S4's (arXiv:2111.00396): characters, ``<eos>``; one encoder for both papers, then a network with one hidden
          layer on [a, b, a - b, a b] of their pooled features a and b
========= =============================================================================================================

References:
    Radev, Muthukrishnan, Qazvinian, Abu-Jbara, The ACL Anthology Network Corpus, 2013.
    Tay et al., Long Range Arena: A Benchmark for Efficient Transformers, arXiv:2011.04006.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch.utils.data import Dataset

from lra_tasks.data.base import Sample, TaskInfo
from lra_tasks.data.characters import CharacterTask
from lra_tasks.data.errors import DataError
from lra_tasks.data.lines import BLOCK, Block, cut_lines
from lra_tasks.data.official import first_folder
from lra_tasks.data.vocabulary import N_TOKENS, Row

_FILES = {split: f"new_aan_pairs.{part}.tsv" for split, part in (("train", "train"), ("val", "eval"), ("test", "test"))}
_LAYOUTS = ("", "tsv_data", "lra_release/tsv_data", "lra_release/lra_release/tsv_data")
_LABELS = {"0": 0, "0.0": 0, "1": 1, "1.0": 1}


class Retrieval(CharacterTask):
    """Pairs of papers by character: 2 x L <= 4000, 2 classes, 147,086 / 18,090 / 17,437.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.
        official_dir: folder that holds the files, their folder tsv_data or lra_release; None looks in data_dir.
        l_max: length to which longer papers are cut, the end token included.
        level: what a token is, "char" or "byte".
        min_freq: how often the training papers must have a character for it to be known.
        append_eos: whether every paper ends with an end token.
        processes: number of processes that read; None for all cores. The data does not depend on it.
    """

    cache_name = "retrieval"
    parts = ("train", "val", "test")
    chunk_size = BLOCK
    info: ClassVar[TaskInfo] = TaskInfo(
        name="retrieval",
        title="ACL Anthology papers by character, does one cite the other",
        source="new_aan_pairs.*.tsv of the Long Range Arena's release (lra_release.gz)",
        length=4000,
        n_classes=2,
        d_input=None,
        n_tokens=N_TOKENS,
        sizes=(147086, 18090, 17437),
        split="the official train, eval and test",
        chance=0.5,
        protocol="S4 (arXiv:2111.00396): 4000 characters of each paper, one encoder for both",
        pair=True,
    )

    def __init__(
        self,
        data_dir: str | Path | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 0,
        *,
        official_dir: str | Path | None = None,
        l_max: int = 4000,
        level: str = "char",
        min_freq: int = 1,
        append_eos: bool = True,
        processes: int | None = None,
    ) -> None:
        options: dict[str, Any] = {"l_max": l_max, "level": level, "min_freq": min_freq, "append_eos": append_eos}
        reading: dict[str, Any] = {"official_dir": official_dir, "processes": processes}
        super().__init__(data_dir, batch_size, num_workers, seed, **reading, **options)

    def files(self) -> list[Path]:
        """The files of the three splits."""
        for name in _FILES.values():
            folder = first_folder(self.read_from, _LAYOUTS, name)
            if folder is not None:
                paths = [folder / name for name in _FILES.values()]
                missing = [path for path in paths if not path.is_file()]
                if missing:
                    raise DataError(f"{missing[0]} is missing beside the other splits of the release")
                return paths
        raise DataError(
            f"no {', '.join(_FILES.values())} in {self.read_from}, its tsv_data or its lra_release: unpack "
            "lra_release.gz of github.com/google-research/long-range-arena there, or name its folder with "
            "--data.official_dir"
        )

    def chunks(self, part: str) -> list[Block]:
        """The lines of a split's file, in blocks of bytes."""
        return cut_lines(dict(zip(_FILES, self.files(), strict=True))[part], self.chunk_size)

    @staticmethod
    def read(chunk: Block) -> list[Row]:
        """Both texts and the label of every line.

        Raises:
            DataError: a line is not as described above; names the file, the line and the fault.
        """
        return chunk.read(_parse)

    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The three splits of the memory-mapped tokens."""
        return {part: self.open_part(folder, part) for part in self.parts}


def _parse(line: str) -> Row:
    fields = line.rstrip("\r").split("\t")
    if len(fields) != 5:
        raise DataError(f"{len(fields)} columns, expected 5 (label, number, number, text, text); is the file cut off?")
    label, _, _, first, second = fields
    if label not in _LABELS:
        raise DataError(f"the label is {label[:20]!r}, expected 0.0 or 1.0")
    if not first or not second:
        raise DataError(f"text {1 if not first else 2} is empty; is the file cut off?")
    return (first, second), _LABELS[label]
