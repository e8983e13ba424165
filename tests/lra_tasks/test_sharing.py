"""Two processes that share the sequences of every batch train as one does, step by step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn import functional as F

from longconv.distributed import Ranks
from longconv.models import SequenceClassifier
from lra_tasks.data import Batch
from lra_tasks.evaluation import build
from lra_tasks.module import SequenceModule, one_in
from lra_tasks.recipes import OptimizerSettings
from lra_tasks.results import RunFolder, read_config
from tests.distributed.processes import Processes, check
from tests.lra_tasks.running import main, read_metrics, read_weights, run, start, tiny
from tests.tolerances import assert_close

MODEL = (
    "--model.dropout",
    "0",
    "--model.n_layers",
    "2",
    "--trainer.max_epochs",
    "1",
    "--trainer.log_every_n_steps",
    "1",
)

# How the processes divide the model; its norm, the precision (fsdp2 has no double one), and how far weights may be
# apart relative to their way: Adam divides by the size of gradients, which makes rounding large.
WAYS = {"ddp": ("batch", "64-true", 1e-7), "fsdp2": ("layer", "32-true", 1e-3)}

# What a BatchNorm takes out again has a gradient of rounding alone, of which Adam makes a step.
TAKEN_OUT = ("embedding.map.bias", "running_mean")


def losses(folder: Path) -> list[float]:
    """Of every step of the training."""
    (events,) = (folder / "logs").glob("events.*")
    log = EventAccumulator(str(events))
    log.Reload()
    return [event.value for event in log.Scalars("train/loss_step")]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", WAYS)
def test_two_processes_that_share_sequences_train_as_one(strategy: str, tmp_path: Path, data_dir: Path) -> None:
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    norm, precision, tolerance = WAYS[strategy]
    model = (*MODEL, "--model.norm", norm, "--trainer.precision", precision)
    two = ("--trainer.devices", "2", "--trainer.strategy", strategy, "--trainer.sequence_parallel", "2")
    process = start(tiny(shared, data_dir, *model, *two))
    run(tiny(alone, data_dir, *model))
    printed, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and printed.count("test accuracy") == 1, printed
    assert len(losses(alone)) == 6
    assert losses(shared) == pytest.approx(losses(alone), rel=max(1e-6, tolerance))  # single precision, as metrics
    got, want = read_metrics(shared), read_metrics(alone)
    assert got["test/accuracy"] == want["test/accuracy"]
    assert got["test/loss"] == pytest.approx(want["test/loss"], rel=max(1e-6, tolerance))
    first = build(read_config(RunFolder(alone)))[1].state_dict()
    ours, theirs = read_weights(shared), read_weights(alone)
    names = [name for name, begin in first.items() if begin.is_floating_point()]
    names = names if norm == "layer" else [name for name in names if not name.endswith(TAKEN_OUT)]
    moved = torch.cat([(theirs[name] - first[name]).flatten() for name in names]).norm()
    assert moved > 0.01
    assert torch.cat([(theirs[name] - ours[name]).flatten() for name in names]).norm() / moved < tolerance


def test_settings_that_cannot_share_sequences_are_refused(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = ("--trainer.devices", "2", "--trainer.sequence_parallel", "2")
    for more, words in (
        (("--trainer.sequence_parallel", "2"), "sequence_parallel is 2 with trainer.devices 1, expected a divisor"),
        ((*two, "--mixer", "transformer"), "expected 1: of RotaryAttention, it has no form for shards"),
        ((*two, "--trainer.compile", "true"), "expected 1: trainer.compile is True"),
    ):
        assert main(tiny(tmp_path / "run", data_dir, *more)) == 2
        assert words in " ".join(capsys.readouterr().err.split())
    assert main(["pretrain", *tiny(tmp_path / "run", data_dir, *two)[1:]]) == 2
    assert "only classifiers of sequences can have them shared" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def at_half_the_rate(ranks: Ranks) -> None:
    """One in two samples of all, wherever the shards begin; without a trainer, which logs."""
    model = SequenceClassifier(3, d_input=2, d_model=4, n_layers=1, mixer_options={"d_state": 4}).double()
    module = SequenceModule(model, OptimizerSettings(), n_classes=3, seed=0)
    module.rate = 2
    lengths = torch.tensor([13, 8, 1])
    batch: Batch = {"inputs": torch.randn(3, 13, 2).double(), "labels": torch.tensor([0, 2, 1]), "lengths": lengths}
    want = module.training_step(batch, 1)["loss"]
    logits = model(batch["inputs"][:, ::2], lengths=torch.tensor([7, 4, 1]), rate=2.0)
    assert_close(want, F.cross_entropy(logits, batch["labels"]), 1e-12)
    module.ranks = ranks
    assert_close(module.training_step(batch, 1)["loss"], want, 1e-12)


def test_sequences_of_another_rate_are_shared() -> None:
    processes = Processes(2)
    try:
        check(processes, 2, at_half_the_rate)
    finally:
        processes.close()


def test_labels_of_positions_go_with_the_samples_that_are_read() -> None:
    inputs, labels = torch.arange(10.0).view(2, 5, 1), torch.arange(10).view(2, 5)
    less = one_in(2, {"inputs": inputs, "labels": labels})
    assert torch.equal(less["inputs"][..., 0].long(), less["labels"]) and less["labels"].shape == (2, 3)
    assert "lengths" not in less


def test_samples_are_dealt_out_to_the_groups(finished: Path) -> None:
    task, _ = build(read_config(RunFolder(finished)))
    trainer: Any = SimpleNamespace(world_size=4, global_rank=3)
    task.sharing, task.trainer = 2, trainer
    assert task._turn() == (2, 1)
    assert list(task.val_dataloader().sampler)[:3] == [1, 3, 5]
    turns = []
    for rank in range(4):
        trainer.global_rank = rank
        turns.append(list(task.train_dataloader().sampler))
    assert turns[0] == turns[1] != turns[2] == turns[3]
