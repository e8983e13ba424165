"""Associative recall: what a sequence holds, what counts, and that no split knows another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lra_tasks.data import DataError, create_task
from lra_tasks.data.base import IGNORED
from lra_tasks.data.recall import (
    ARROW,
    KEYS,
    STOP,
    AssociativeRecall,
    Recalls,
    distinct_sequences,
    draw_hidden,
    draw_sequences,
)


def prepared(folder: Path, **options: object) -> AssociativeRecall:
    task = create_task(
        "associative_recall", data_dir=folder, **{"n_train": 60, "n_val": 20, "n_test": 30, "seq_len": 16, **options}
    )
    task.prepare_data()
    assert isinstance(task, AssociativeRecall)
    return task


def test_the_answer_is_the_value_of_the_key() -> None:
    rows = draw_sequences(np.random.default_rng(0), 500, 12)
    for row in rows.tolist():
        keys, values = row[0:-3:2], row[1:-3:2]
        memory = dict(zip(keys, values, strict=True))
        assert all(memory[key] == value for key, value in zip(keys, values, strict=True)), "a key has one value"
        arrow, asked, answer = row[-3:]
        assert arrow == ARROW and memory[asked] == answer
    assert set(rows[:, 0:-3:2].ravel()) == set(range(KEYS))
    assert set(rows[:, 1:-3:2].ravel()) == set(range(KEYS, 2 * KEYS))


def test_keys_values_and_questions_are_uniform() -> None:
    rows = draw_sequences(np.random.default_rng(0), 9000, 64)
    for column, first in ((rows[:, 0], 0), (rows[:, 1], KEYS), (rows[:, -2], 0), (rows[:, -1], KEYS)):
        counts = np.bincount(column - first, minlength=KEYS)
        assert len(counts) == KEYS and abs(counts / 1000 - 1).max() < 0.15


def test_sequences_are_distinct_over_all_splits(tmp_path: Path) -> None:
    task = prepared(tmp_path, seq_len=4, n_train=3000)
    rows = []
    for loader in (task.train_dataloader(), task.val_dataloader(), task.test_dataloader()):
        for batch in loader:
            rows += [
                (*row, answer)
                for row, answer in zip(batch["inputs"].tolist(), batch["labels"][:, -1].tolist(), strict=True)
            ]
    assert len(rows) == len(set(rows)) == 3050


def test_what_counts(tmp_path: Path) -> None:
    """In training every next token, values that are hidden, or the answer; in validation and test the answer."""
    for targets in ("all", "hidden", "last"):
        task = prepared(tmp_path, targets=targets)
        assert task.length == 18 and task.sizes == (60, 20, 30) and task.needs_causal == (targets == "all")
        batch = next(iter(task.train_dataloader()))
        inputs, labels = batch["inputs"], batch["labels"]
        assert inputs.shape == labels.shape == (50, 18)
        if targets == "all":
            assert (labels[:, :-1] == inputs[:, 1:]).all()
        for others in (labels if targets == "last" else None, next(iter(task.test_dataloader()))["labels"]):
            assert others is None or (others[:, :-1] == IGNORED).all()
        assert (labels[:, -1] >= KEYS).all()


def test_hidden_values(tmp_path: Path) -> None:
    """What counts is what doesn't stand in the input; the shares of sequences differ; nothing else has changed."""
    whole = next(iter(prepared(tmp_path, targets="all", n_train=600, batch_size=600, seq_len=64).train_dataloader()))
    task = prepared(tmp_path, targets="hidden", n_train=600, batch_size=600, seq_len=64)
    batch = next(iter(task.train_dataloader()))
    hidden, counted = batch["inputs"] == STOP, batch["labels"] != IGNORED
    assert not hidden[:, 0::2].any() and (counted[:, :-1] == hidden[:, 1:]).all() and counted[:, -1].all()
    assert (batch["labels"] == whole["labels"])[counted].all() and (batch["inputs"] == whole["inputs"])[~hidden].all()
    share = hidden[:, 1::2].double().mean(1)
    assert abs(share.mean() - 0.25) < 0.02 and share.max() > 0.4 and share.min() < 0.05
    assert not (next(iter(task.test_dataloader()))["inputs"] == STOP).any()


def test_what_is_hidden_is_not_drawn_as_the_sequences_are() -> None:
    """From one stream the first numbers would decide on both: masks and the keys of the sequences."""
    whole = np.zeros((2000, 3 + 16), np.uint8)
    hidden = Recalls(whole, "hidden", seed=0).inputs[:, 1:-3:2] == STOP
    assert not np.array_equal(hidden, draw_hidden(np.random.default_rng(0), 2000, 8))


def test_the_data_depends_on_its_own_seed_alone(tmp_path: Path) -> None:
    first = distinct_sequences(50, 8, 3)
    assert np.array_equal(first, distinct_sequences(50, 8, 3))
    assert np.array_equal(first[:20], distinct_sequences(50, 8, 3)[:20])
    assert not np.array_equal(first, distinct_sequences(50, 8, 4))
    assert prepared(tmp_path, seed=1).folder == prepared(tmp_path).folder != prepared(tmp_path, data_seed=1).folder


def test_bad_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seq_len is 7, expected an even number"):
        create_task("associative_recall", seq_len=7)
    with pytest.raises(ValueError, match=r"targets is 'lst'.*did you mean 'last'"):
        create_task("associative_recall", targets="lst")
    with pytest.raises(DataError, match="only 81 distinct sequences of 1 pairs"):
        prepared(tmp_path, seq_len=2, n_train=1000)
