"""What every task shares: its facts, its loaders, its deterministic order and its cache."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NotRequired, TypedDict

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from longconv._checks import check_int
from lra_tasks.data.cache import default_data_dir, ensure, find_fault, fingerprint
from lra_tasks.data.errors import DataError

Batch = dict[str, Tensor]
"""inputs float32 (B, L, d_input) or int64 (B, L); labels int64 (B,), or (B, L) where every position has its own;
lengths int64 (B,) where lengths differ. Pairs of token sequences: inputs (B, 2, L), lengths (B, 2)."""
IGNORED = -100
"""The label of a position that does not count."""


class Sample(TypedDict):
    """One sample of a data set: inputs float32 (L, d_input) or int64 (L,), and its class, or int64 (L,) classes.

    Where a sample is a pair, ``second`` is its other sequence.
    """

    inputs: Tensor
    second: NotRequired[Tensor]
    label: int | Tensor


@dataclass(frozen=True)
class TaskInfo:
    """The facts of a task.

    Attributes:
        name: what the command line calls it.
        title: one line for people.
        source: where the data comes from.
        length: the (greatest) sequence length L.
        n_classes: number of classes.
        d_input: channels of a continuous input, None for tokens.
        n_tokens: size of the vocabulary of a token input, None for continuous input.
        sizes: samples in train, validation and test.
        split: how these were divided.
        metric: the published figure of merit.
        chance: its value for a guess that ignores the input.
        protocol: which published protocol is followed.
        per_position: whether every position has a class, in place of the whole sequence.
        pair: whether a sample is two sequences.
    """

    name: str
    title: str
    source: str
    length: int
    n_classes: int
    d_input: int | None
    n_tokens: int | None
    sizes: tuple[int, int, int]
    split: str
    chance: float
    protocol: str
    metric: str = "accuracy"
    per_position: bool = False
    pair: bool = False


def check_counts(**counts: int) -> dict[str, int]:
    """How many samples each split has, by its name, from ``n_train``, ``n_val`` and ``n_test``."""
    return {name.removeprefix("n_"): check_int(name, count) for name, count in counts.items()}


class Task(LightningDataModule, ABC):
    """A data set ready to train on.

    A subclass states ``info``, ``cache_name`` and ``variable_length`` and defines ``parameters``, ``build`` and
    ``load``. Shuffling depends on (seed, epoch) alone, so a run resumed at an epoch sees the batches that an
    uninterrupted one sees.

    Args:
        data_dir: where prepared data is kept; None for $LONGCONV_DATA or ~/.cache/longconv.
        batch_size: samples a batch.
        num_workers: processes that load batches; 0 loads them in the training process.
        seed: of the training order; not of the data.

    Attributes:
        sharing: number of processes that get the same batches, to share their sequences.
    """

    info: ClassVar[TaskInfo]
    cache_name: ClassVar[str]
    variable_length: ClassVar[bool] = False

    def __init__(
        self, data_dir: str | Path | None = None, batch_size: int = 50, num_workers: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        self.data_dir = Path(data_dir).expanduser() if data_dir is not None else default_data_dir()
        self.batch_size = check_int("batch_size", batch_size)
        self.num_workers = check_int("num_workers", num_workers, least=0)
        self.seed = check_int("seed", seed, least=0)
        self.sharing = 1
        self._prepared = False
        self._splits: Mapping[str, Dataset[Sample]] = {}

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What determines the prepared files, as JSON values; needs no source file to be there."""

    def source(self) -> Any:
        """What tells that the files read have changed, as a JSON value; None where none are read, or they are gone."""
        return None

    @abstractmethod
    def build(self, folder: Path) -> None:
        """Write the prepared files into an empty folder."""

    @abstractmethod
    def load(self, folder: Path) -> Mapping[str, Dataset[Sample]]:
        """The data sets "train", "val" and "test" from a prepared folder."""

    @classmethod
    def lacks(cls) -> str | None:
        """What this machine lacks to prepare the data, or None; missing files of data are no matter of the machine."""
        return None

    @property
    def length(self) -> int:
        """The (greatest) sequence length L with these options."""
        return self.info.length

    @property
    def needs_causal(self) -> bool:
        """Whether a mixer that sees the future would find the labels in its input."""
        return False

    @property
    def folder(self) -> Path:
        """Where this task's prepared files lie."""
        return self.data_dir / self.cache_name / fingerprint(self.parameters())

    def prepare_data(self) -> None:
        """Build the cache where it is missing, damaged or of other files than the source's; checks its every byte once.

        A whole cache needs its source no more.

        Raises:
            DataError: source files are missing or corrupt, or the cache cannot be written.
        """
        if not self._prepared:
            ensure(self.folder, self.parameters(), self.build, self.source())
            self._prepared = True  # Lightning asks again, and the largest data takes minutes to check

    def setup(self, stage: str | None = None) -> None:
        """Open the prepared data (memory-mapped).

        Raises:
            DataError: the data has not been prepared, or files of it are missing.
        """
        if self._splits:
            return
        fault = find_fault(self.folder, self.parameters())
        if fault is not None:
            command = f"lra-tasks prepare {self.info.name} --data-dir {self.data_dir}"
            raise DataError(
                f"{self.info.name} is not prepared in {self.folder} ({fault}): run `{command}` first, "
                "with the --preset and the --data options of the run"
            )
        self._splits = self.load(self.folder)

    def dataset(self, split: str) -> Dataset[Sample]:
        """The data set of "train", "val" or "test"."""
        self.setup()
        return self._splits[split]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Samples in train, validation and test as they are on disk (``info.sizes`` are the default ones)."""
        train, val, test = (_size(self.dataset(split)) for split in ("train", "val", "test"))
        return train, val, test

    def train_dataloader(self) -> DataLoader[Sample]:
        """Shuffled by (seed, epoch); every sample once an epoch."""
        dataset, (n_processes, process) = self.dataset("train"), self._turn()
        sampler = EpochSampler(_size(dataset), self.seed, n_processes=n_processes, process=process)
        return DataLoader(dataset, sampler=sampler, **self._options())

    def val_dataloader(self) -> DataLoader[Sample]:
        """In fixed order."""
        dataset, (n_processes, process) = self.dataset("val"), self._turn()
        sampler: DistributedSampler[Sample] | None = None
        if self.sharing > 1:  # else Lightning makes it
            sampler = DistributedSampler(dataset, n_processes, process, shuffle=False)
        return DataLoader(dataset, sampler=sampler, shuffle=False, **self._options())

    def test_dataloader(self) -> DataLoader[Sample]:
        """In fixed order."""
        return DataLoader(self.dataset("test"), shuffle=False, **self._options())

    def _turn(self) -> tuple[int, int]:
        """Into how many parts the samples are dealt out, and which of them is this process's."""
        if self.trainer is None:
            return 1, 0
        return self.trainer.world_size // self.sharing, self.trainer.global_rank // self.sharing

    def _collate(self) -> Callable[[Sequence[Sample]], Batch]:
        if self.info.pair:
            return collate_pairs
        return collate_padded if self.variable_length else collate

    def _options(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "num_workers": self.num_workers,
            "collate_fn": self._collate(),
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
        }


def official_folder(given: str | Path | None) -> Path | None:
    """The folder of an official release, absolute, so that a cache made from it is found from anywhere."""
    return None if given is None else Path(given).expanduser().absolute()


def marks(files: Iterable[Path]) -> list[list[Any]]:
    """Name, size and time of files: other ones are other files."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


class EpochSampler(DistributedSampler[int]):
    """A permutation of 0..n-1 that depends on (seed, epoch) alone.

    Of several processes each takes its turn in it, so that together they read, batch after batch, what one would; the
    first samples come again where n is no multiple of their number.

    >>> sampler = EpochSampler(5, seed=1)
    >>> sampler.set_epoch(3); first = list(sampler)
    >>> sampler.set_epoch(4); sampler.set_epoch(3); first == list(sampler), sorted(first)
    (True, [0, 1, 2, 3, 4])
    """

    def __init__(self, n: int, seed: int, *, n_processes: int = 1, process: int = 0) -> None:
        super().__init__(range(n), n_processes, process, seed=seed)  # type: ignore[arg-type]
        self.n = n

    def __iter__(self) -> Iterator[int]:
        # A generator's seed for each pair: no run has 2^31 epochs, so that no two pairs share one.
        generator = torch.Generator().manual_seed((self.seed * 2**31 + self.epoch) % 2**63)
        order = torch.randperm(self.n, generator=generator)
        turns = torch.arange(self.rank, self.total_size, self.num_replicas) % self.n
        yield from order[turns].tolist()


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one length: {"inputs": (B, L, d_input) or (B, L), "labels": (B,) or (B, L)}."""
    inputs = torch.stack([sample["inputs"] for sample in samples])
    return {"inputs": inputs, "labels": torch.stack([torch.as_tensor(sample["label"]) for sample in samples])}


def collate_padded(samples: Sequence[Sample]) -> Batch:
    """Pad with zeros at the end to the longest of the batch, and add {"lengths": (B,)}.

    >>> samples = [{"inputs": torch.tensor([5, 6]), "label": 1}, {"inputs": torch.tensor([7]), "label": 0}]
    >>> batch = collate_padded(samples)
    >>> batch["inputs"].tolist(), batch["lengths"].tolist(), batch["labels"].tolist()
    ([[5, 6], [7, 0]], [2, 1], [1, 0])
    """
    inputs = torch.nn.utils.rnn.pad_sequence([sample["inputs"] for sample in samples], batch_first=True)
    lengths = torch.tensor([len(sample["inputs"]) for sample in samples])
    return {"inputs": inputs, "labels": torch.tensor([sample["label"] for sample in samples]), "lengths": lengths}


def collate_pairs(samples: Sequence[Sample]) -> Batch:
    """Pad with zeros to the longest of all: {"inputs": (B, 2, L), "labels": (B,), "lengths": (B, 2)}.

    >>> batch = collate_pairs([{"inputs": torch.tensor([5, 6]), "second": torch.tensor([7]), "label": 1}])
    >>> batch["inputs"].tolist(), batch["lengths"].tolist()
    ([[[5, 6], [7, 0]]], [[2, 1]])
    """
    both = ((sample["inputs"], sample["second"]) for sample in samples)
    padded = collate_padded([{"inputs": sequence, "label": 0} for pair in both for sequence in pair])
    pairs = {name: padded[name].unflatten(0, (len(samples), 2)) for name in ("inputs", "lengths")}
    return {**pairs, "labels": torch.tensor([sample["label"] for sample in samples])}


def fractions(n: int, *parts: float) -> tuple[int, ...]:
    """Sizes of a split of ``n``: the given parts rounded down, the rest first.

    >>> fractions(100, 0.1, 0.1)
    (80, 10, 10)
    """
    rest = [math.floor(n * part + 1e-9) for part in parts]
    return n - sum(rest), *rest


def _size(dataset: Dataset[Sample]) -> int:
    assert isinstance(dataset, Sized)
    return len(dataset)
