"""ListOps: values against an independent evaluator, statistics against a plain recursive generator, the tsv reader."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lra_tasks.data import DataError, create_task
from lra_tasks.data.listops.official import cut_tsv, read_rows, to_source, write_tsv
from lra_tasks.data.listops.task import ListOps, generate_chunk
from lra_tasks.data.listops.trees import CLOSE, DIGIT, EOS, VOCABULARY, random_expressions

LONG: dict[str, int] = {"max_depth": 10, "max_args": 10, "min_length": 500, "max_length": 2000}
SMALL: dict[str, Any] = {"n_train": 200, "n_val": 20, "n_test": 30, "min_length": 5, "max_length": 60}

OPERATIONS: dict[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def parse(words: list[str]) -> tuple[int, int, int]:
    """Value, depth and most arguments of the expression at the start of ``words``, which it eats."""
    word = words.pop(0)
    if word.isdigit():
        return int(word), 1, 0
    values, depth, most = [], 0, 0
    while words[0] != "X":
        value, below, inner = parse(words)
        values.append(value)
        depth, most = max(depth, below), max(most, inner)
    words.pop(0)
    return OPERATIONS[word](values), depth + 1, max(most, len(values))


def naive(generator: random.Random, depth: int) -> tuple[int, int]:
    """Length and value of a random expression, by the definition."""
    if depth == 10 or generator.random() > 0.25:
        return 1, generator.randrange(10)
    children = [naive(generator, depth + 1) for _ in range(generator.randint(2, 10))]
    values = [value for _, value in children]
    return 2 + sum(length for length, _ in children), generator.choice(list(OPERATIONS.values()))(values)


@pytest.fixture(scope="module")
def rows() -> list[tuple[np.ndarray, int]]:
    """About 4000 expressions of the official lengths."""
    chunks = [generate_chunk(0, chunk, **LONG) for chunk in range(6)]
    return [(np.frombuffer(tokens, np.uint8), value) for chunk in chunks for tokens, value in chunk]


def test_values_depths_and_arguments(rows: list[tuple[np.ndarray, int]]) -> None:
    depths, arities = [], []
    for tokens, value in rows[:500]:
        words = [VOCABULARY[token] for token in tokens]
        got, depth, most = parse(words)
        assert words == [], "one expression and no more"
        assert got == value
        depths.append(depth)
        arities.append(most)
    assert max(depths) == 10 and max(arities) == 10


def test_lone_digits_and_shallow_trees() -> None:
    settings = {"max_args": 3, "min_length": 0, "max_length": 100}
    lone = list(random_expressions(np.random.default_rng(0), 100, max_depth=1, **settings))
    assert all(len(tokens) == 1 and tokens[0] - DIGIT == value for tokens, value in lone) and len(lone) == 100
    flat = list(random_expressions(np.random.default_rng(0), 400, max_depth=2, **settings))
    assert {len(tokens) for tokens, _ in flat} == {1, 4, 5}
    assert all(parse([VOCABULARY[token] for token in tokens])[0] == value for tokens, value in flat)


def test_lengths_and_labels_as_by_the_definition(rows: list[tuple[np.ndarray, int]]) -> None:
    """Means within four standard errors of a plain recursive generator's, and the known skew towards 0 and 9."""
    generator = random.Random(0)
    trees = [naive(generator, 1) for _ in range(15000)]
    kept = [(length, value) for length, value in trees if 500 < length < 2000]
    lengths, expected = np.array([len(tokens) for tokens, _ in rows]), np.array([length for length, _ in kept])
    assert lengths.min() > 500 and lengths.max() < 2000
    error = np.hypot(lengths.std() / len(lengths) ** 0.5, expected.std() / len(expected) ** 0.5)
    assert abs(lengths.mean() - expected.mean()) < 4 * error
    assert abs(lengths.std() / expected.std() - 1) < 0.1
    rate, naive_rate = len(rows) / (6 * 8192), len(kept) / len(trees)
    assert abs(rate - naive_rate) < 4 * (naive_rate / len(trees)) ** 0.5
    share = np.bincount([value for _, value in rows], minlength=10) / len(rows)
    assert abs(share[0] - 0.168) < 4 * (0.168 / len(rows)) ** 0.5
    assert abs(share[9] - 0.165) < 4 * (0.165 / len(rows)) ** 0.5
    assert 0.06 < share[1:9].min() < share[1:9].max() < 0.11


def test_data_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    folders = []
    for processes in (1, 2, 3):
        task = create_task("listops", data_dir=tmp_path / str(processes), processes=processes, **SMALL)
        task.prepare_data()
        folders.append(task.folder)
    for file in folders[0].glob("*.npy"):
        contents = {(folder / file.name).read_bytes() for folder in folders}
        assert len(contents) == 1, file.name
    other = create_task("listops", data_dir=tmp_path, data_seed=1, processes=1, **SMALL)
    assert other.folder.name != folders[0].name


def test_expressions_are_distinct(tmp_path: Path) -> None:
    task = create_task("listops", data_dir=tmp_path, processes=1, **{**SMALL, "max_length": 10})
    task.prepare_data()
    assert task.sizes == (200, 20, 30)
    seen = {
        tuple(task.dataset(split)[index]["inputs"].tolist())
        for split, n in zip(("train", "val", "test"), task.sizes, strict=True)
        for index in range(n)
    }
    assert len(seen) == 250


def test_too_many_expressions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lra_tasks.data.listops.task._FRUITLESS", 2)
    options = {"min_length": 0, "max_length": 2, "n_train": 8, "n_val": 1, "n_test": 2, "processes": 1}
    task = create_task("listops", data_dir=tmp_path, **options)
    with pytest.raises(DataError, match="only 10 distinct expressions of 11"):
        task.prepare_data()
    assert not task.folder.exists()


@pytest.mark.parametrize(
    "options", [{"max_length": 501}, {"max_args": 1}, {"n_train": 0}, {"max_depth": 0}, {"processes": 0}, {"l_max": 1}]
)
def test_bad_options(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ListOps(**options)  # type: ignore[arg-type]


def test_l_max_and_eos(tmp_path: Path) -> None:
    def first(**options: Any) -> torch.Tensor:
        task = create_task("listops", data_dir=tmp_path, processes=1, **SMALL, **options)
        task.prepare_data()
        return max((task.dataset("train")[index]["inputs"] for index in range(50)), key=len)

    whole = first(append_eos=False)
    assert (whole != EOS).all() and whole[-1] == CLOSE
    assert first().tolist() == [*whole.tolist(), EOS]
    assert first(l_max=10).tolist()[-1] == EOS and len(first(l_max=10)) == 10
    assert torch.equal(first(l_max=len(whole), append_eos=False), whole)


def test_a_process_that_loads_batches_gets_the_path_and_not_the_tokens(tmp_path: Path) -> None:
    task = create_task("listops", data_dir=tmp_path, processes=1, **SMALL)
    task.prepare_data()
    expressions = task.dataset("train")
    read = expressions[7]["inputs"]
    sent = pickle.dumps(expressions)
    assert np.load(task.folder / "train_tokens.npy")[:100].tobytes() not in sent
    assert torch.equal(pickle.loads(sent)[7]["inputs"], read)


HEADER = "Source\tTarget\r\n"
GOOD = "( ( ( [MAX 2 ) 9 ) ] )\t9\r\n"
NESTED = "( ( ( [SM ( ( ( ( [MED 4 ) 7 ) 1 ) ] ) ) 8 ) ] )\t2\r\n"


def release(folder: Path, **contents: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "val", "test"):
        (folder / f"basic_{split}.tsv").write_bytes(contents.get(split, HEADER + GOOD + NESTED).encode())
    return folder


@pytest.mark.parametrize(
    "layout", ["", "listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000"]
)
def test_reads_the_official_files(tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    release(tmp_path / "source" / layout)
    task = create_task("listops", data_dir=tmp_path / "data", official_dir=tmp_path / "source")
    task.prepare_data()
    assert task.sizes == (2, 2, 2)
    assert "basic_train.tsv has 2 samples, the official release 96000" in caplog.text
    sample = task.dataset("test")[1]
    assert [VOCABULARY[token] for token in sample["inputs"]] == ["[SM", "[MED", "4", "7", "1", "X", "8", "X", "<eos>"]
    assert sample["label"] == 2


@pytest.mark.parametrize("size", [1, 20000, 10**9])
def test_writes_what_it_reads(tmp_path: Path, rows: list[tuple[np.ndarray, int]], size: int) -> None:
    write_tsv(tmp_path / "a.tsv", iter(rows[:50]))
    got = [row for block in cut_tsv(tmp_path / "a.tsv", size) for row in read_rows(block)]
    assert all(np.array_equal(a, c) and b == d for (a, b), (c, d) in zip(got, rows[:50], strict=True))
    parts = [[VOCABULARY.index(word) for word in line.split()] for line in ("[MAX 2 9 X", "[SM [MED 4 7 1 X 8 X", "7")]
    sources = [GOOD.split("\t")[0], NESTED.split("\t")[0], "7"]
    assert [to_source(np.array(tokens)) for tokens in parts] == sources


def test_generated_files_in_the_official_layout(tmp_path: Path) -> None:
    made = create_task("listops", data_dir=tmp_path, processes=1, write_official=True, **SMALL)
    made.prepare_data()
    read = create_task("listops", data_dir=tmp_path, official_dir=made.folder)
    read.prepare_data()
    for split in ("train", "val", "test"):
        for file in (f"{split}_tokens.npy", f"{split}_labels.npy"):
            assert (made.folder / file).read_bytes() == (read.folder / file).read_bytes()


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_official_rows_do_not_depend_on_processes_blocks_and_ends_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, last: bool
) -> None:
    lines = ["Source\tTarget", *(f"( ( ( [MIN {i // 10} ) {i % 10} ) ] )\t{i % 7}" for i in range(60))]
    content = end.join(lines) + end * last
    folder = release(tmp_path / "source", train=content)
    for processes, block in ((1, 10**9), (1, 100), (2, 100), (3, 1)):
        monkeypatch.setattr("lra_tasks.data.listops.task.BLOCK", block)
        data_dir = tmp_path / f"{processes} {block}"
        task = create_task("listops", data_dir=data_dir, official_dir=folder, processes=processes)
        task.prepare_data()
        assert task.sizes == (60, 2, 2)
        for i in range(60):
            sample = task.dataset("train")[i]
            assert sample["inputs"].tolist() == [13, 3 + i // 10, 3 + i % 10, CLOSE, EOS]
            assert sample["label"] == i % 7
        offsets = np.load(task.folder / "train_offsets.npy")
        assert offsets.dtype == np.int64 and offsets.tolist() == list(range(0, 241, 4))
        assert np.load(task.folder / "train_labels.npy").dtype == np.uint8


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 60, 10**9])
def test_the_first_bad_row_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, block: int
) -> None:
    monkeypatch.setattr("lra_tasks.data.listops.task.BLOCK", block)
    folder = release(tmp_path / "source", val=HEADER + 9 * GOOD + "( [AVG 1 )\t9\r\n" + GOOD + "1\t2\t3\r\n", test="")
    task = create_task("listops", data_dir=tmp_path / "data", official_dir=folder, processes=processes)
    with pytest.raises(DataError, match=r"basic_val.tsv, line 11: unknown token '\[AVG'"):
        task.prepare_data()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "line 1: the header is ''"),
        ("Target\tSource\r\n" + GOOD, "line 1: the header is 'Target"),
        (HEADER, "no rows"),
        (HEADER + GOOD + "( [MAX 1\r\n", "line 3: 1 columns, expected 2"),
        (HEADER + "1\t2\t3\r\n", "line 2: 3 columns"),
        (HEADER + GOOD + "( ( ( [MAX 2 ) 9 ) ] )\t10\r\n", "line 3: the label is '10'"),
        (HEADER + "( ( ( [MAX 2 ) 9 ) ] )\t\r\n", "line 2: the label is ''"),
        (HEADER + "( ( ( [AVG 2 ) 9 ) ] )\t9\r\n", r"line 2: unknown token '\[AVG'"),
        (HEADER + "( ( ( [MAX 2 ) 9 )\t9\r\n", "line 2: the expression's brackets do not match"),
        (HEADER + "] [MAX\t9\r\n", "brackets do not match"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path: Path, content: str, named: str) -> None:
    folder = release(tmp_path / "source", val=content)
    task = create_task("listops", data_dir=tmp_path / "data", official_dir=folder)
    with pytest.raises(DataError, match=f"basic_val.tsv.*{named}"):
        task.prepare_data()
    assert not task.folder.exists()


def test_binary_and_missing_files(tmp_path: Path) -> None:
    folder = release(tmp_path / "source")
    (folder / "basic_test.tsv").write_bytes(HEADER.encode() + b"\xff\xfe\x00")
    task = create_task("listops", data_dir=tmp_path / "data", official_dir=folder)
    with pytest.raises(DataError, match=r"basic_test.tsv, line 2: it is no text in UTF-8"):
        task.prepare_data()
    (folder / "basic_test.tsv").unlink()
    with pytest.raises(DataError, match=r"basic_test.tsv is missing beside"):
        task.prepare_data()
    with pytest.raises(DataError, match=r"no basic_train.tsv.*lra_release.gz"):
        create_task("listops", data_dir=tmp_path, official_dir=tmp_path / "nowhere").prepare_data()


def test_changed_official_files_are_read_again(tmp_path: Path) -> None:
    folder = release(tmp_path / "source")
    for n, content in ((2, HEADER + GOOD + NESTED), (3, HEADER + GOOD + NESTED + GOOD)):
        release(folder, train=content)
        task = create_task("listops", data_dir=tmp_path / "data", official_dir=folder)
        task.prepare_data()
        assert task.sizes[0] == n
