"""IMDB reviews and pairs of papers, as characters and as bytes, from their published layouts."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lra_tasks.data import TASKS, DataError, create_task
from lra_tasks.data.vocabulary import N_TOKENS, choose_characters
from tests.lra_tasks.data.layouts import aan, imdb, papers, reviews

NEAR = {"level": "char", "min_freq": 30, "l_max": 30, "append_eos": True}


def vocabulary(texts: list[str], min_freq: int) -> list[str]:
    """The known characters in the order of their tokens, by the definition."""
    counts = Counter(character for text in texts for character in text)
    return sorted((c for c, n in counts.items() if n >= min_freq), key=lambda c: (-counts[c], c))


def by_definition(text: str, known: list[str], l_max: int = 30) -> list[int]:
    return [known.index(c) + 3 if c in known else 1 for c in text[: l_max - 1]] + [2]


@pytest.mark.parametrize("archive", [False, True])
def test_reviews_as_characters(tmp_path: Path, archive: bool, caplog: pytest.LogCaptureFixture) -> None:
    imdb(tmp_path / "source", archive=archive)
    task = create_task("text", data_dir=tmp_path / "data", official_dir=tmp_path / "source", **NEAR)
    task.prepare_data()
    assert f"train of text in {tmp_path / 'source'} has 40 samples, the official release 25000" in caplog.text
    assert task.sizes == (40, 40, 40) and task.length == 30
    known = vocabulary([text[:29] for _, _, text in reviews("train")], 30)
    assert json.loads((task.folder / "characters.json").read_text()) == known
    assert 1 < len(known) < len(vocabulary([text for _, _, text in reviews("train")], 1))
    for split, part in (("train", "train"), ("val", "test"), ("test", "test")):
        for index, (kind, _, text) in enumerate(reviews(part)):
            sample = task.dataset(split)[index]
            assert sample["inputs"].tolist() == by_definition(text, known)
            assert sample["label"] == (kind == "pos")
    assert len(pickle.dumps(task.dataset("train"))) < 3000, "a worker gets the path, not the tokens"


def test_reviews_as_bytes(tmp_path: Path) -> None:
    imdb(tmp_path)
    for below, options, end in (("", {}, [2]), ("aclImdb", {"append_eos": False}, [])):
        task = create_task("text", data_dir=tmp_path, official_dir=tmp_path / below, level="byte", l_max=31, **options)
        task.prepare_data()
        for index, (_, _, text) in enumerate(reviews("train")):
            expected = [3 + byte for byte in text.encode()][: 31 - len(end)] + end
            assert task.dataset("train")[index]["inputs"].tolist() == expected


def test_a_share_of_the_training_reviews_validates(tmp_path: Path) -> None:
    imdb(tmp_path)
    task = create_task("text", data_dir=tmp_path, val_share=0.1, **NEAR)
    task.prepare_data()
    assert task.sizes == (36, 4, 40)
    whole = create_task("text", data_dir=tmp_path, **NEAR)
    whole.prepare_data()
    assert whole.folder == task.folder
    order = torch.randperm(40, generator=torch.Generator().manual_seed(42)).tolist()
    for index, row in enumerate(order):
        split, at = ("train", index) if index < 36 else ("val", index - 36)
        assert torch.equal(task.dataset(split)[at]["inputs"], whole.dataset("train")[row]["inputs"])


def test_what_shapes_the_cache(tmp_path: Path) -> None:
    def folder(**options: Any) -> Path:
        return create_task("text", data_dir=tmp_path, **options).folder

    changes: tuple[dict[str, Any], ...] = ({}, {"l_max": 9}, {"level": "byte"}, {"min_freq": 2}, {"official_dir": "x"})
    assert len({folder(**options) for options in changes}) == len(changes)
    assert folder(val_share=0.1) == folder() == folder(l_max=4095, append_eos=False)


@pytest.mark.parametrize("below", ["", "tsv_data", "lra_release/tsv_data", "lra_release/lra_release/tsv_data"])
def test_pairs_of_papers(tmp_path: Path, below: str) -> None:
    aan(tmp_path / "source" / below)
    task = create_task("retrieval", data_dir=tmp_path / "data", official_dir=tmp_path / "source", l_max=30)
    task.prepare_data()
    assert task.sizes == (40, 16, 16)
    known = vocabulary([text[:29] for _, *pair in papers("train", 40) for text in pair], 1)
    for split, part, n in (("train", "train", 40), ("val", "eval", 16), ("test", "test", 16)):
        for index, (label, first, second) in enumerate(papers(part, n)):
            sample = task.dataset(split)[index]
            assert sample["inputs"].tolist() == by_definition(first, known)
            assert sample["second"].tolist() == by_definition(second, known)
            assert sample["label"] == label
    batch = next(iter(task.test_dataloader()))
    assert batch["inputs"].shape == (16, 2, 30) and batch["lengths"].shape == (16, 2)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"1.0\t1\t2\tone\n", "line 2: 4 columns, expected 5"),
        (b"1.0\t1\t2\tone\ttwo\tthree\n", "line 2: 6 columns"),
        (b"\n", "line 2: 1 columns"),
        (b"2.0\t1\t2\tone\ttwo\n", "line 2: the label is '2.0', expected 0.0 or 1.0"),
        (b"nan\t1\t2\tone\ttwo\n", "line 2: the label is 'nan'"),
        (b"1.0\t1\t2\tone\t\n", "line 2: text 2 is empty"),
        (b"1.0\t1\t2\tone\t\xff\n", "line 2: it is no text in UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, named: str) -> None:
    path = aan(tmp_path) / "new_aan_pairs.eval.tsv"
    path.write_bytes(b"0.0\t3\t4\tone\ttwo\n" + line)
    task = create_task("retrieval", data_dir=tmp_path)
    with pytest.raises(DataError, match=f"new_aan_pairs.eval.tsv.*{named}"):
        task.prepare_data()
    assert not task.folder.exists()


@pytest.mark.parametrize("name", ["text", "archive", "retrieval"])
@pytest.mark.parametrize("level", ["char", "byte"])
def test_data_does_not_depend_on_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, level: str
) -> None:
    if name == "retrieval":
        aan(tmp_path / "source")
    else:
        imdb(tmp_path / "source", archive=name == "archive")
    task, sizes = ("retrieval", (10**9, 1, 700, 700)) if name == "retrieval" else ("text", (256, 1, 7, 7))
    folders: list[Path] = []
    for processes, size in zip((1, 1, 2, 3), sizes, strict=True):
        monkeypatch.setattr(TASKS[task], "chunk_size", size)
        options = {**NEAR, "level": level, "official_dir": tmp_path / "source", "processes": processes}
        made = create_task(task, data_dir=tmp_path / f"{processes} {size}", **options)
        made.prepare_data()
        folders.append(made.folder)
    names = {path.name for path in folders[0].iterdir()}
    assert ("characters.json" in names) == (level == "char")
    for folder in folders[1:]:
        assert {path.name for path in folder.iterdir()} == names
        assert all((folder / file).read_bytes() == (folders[0] / file).read_bytes() for file in names)


def test_ends_of_lines_and_what_only_looks_like_them(tmp_path: Path) -> None:
    """A line feed ends a line, returns before it belong to it, and all other marks stay text."""
    lines = [b"1\t1\t2\tone\ttwo\r\n", b"0\t1\t2\tA\rB\tC\x0bD\xe2\x80\xa8E\r\r\n", b"1.0\t1\t2\tCaf\xc3\xa9\tlast"]
    expected = [(b"one", b"two", 1), (b"A\rB", b"C\x0bD\xe2\x80\xa8E", 0), (b"Caf\xc3\xa9", b"last", 1)]
    (aan(tmp_path) / "new_aan_pairs.train.tsv").write_bytes(b"".join(lines))
    task = create_task("retrieval", data_dir=tmp_path, level="byte", append_eos=False)
    task.prepare_data()
    rows = [task.dataset("train")[index] for index in range(3)]
    assert [
        (*(bytes((row[name] - 3).tolist()) for name in ("inputs", "second")), row["label"]) for row in rows
    ] == expected


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 700, 10**9])
def test_the_first_bad_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int, size: int
) -> None:
    monkeypatch.setattr(TASKS["retrieval"], "chunk_size", size)
    path = aan(tmp_path) / "new_aan_pairs.train.tsv"
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in ((19, b"3.0\t1\t2\tone\ttwo\n"), (20, b"\n"), (31, b"1.0\t1\t2\tone\t\xff\n")):
        lines[number - 1] = line
    for number, named in ((19, "the label is '3.0'"), (20, "1 columns"), (31, "it is no text in UTF-8")):
        path.write_bytes(b"".join(lines))
        with pytest.raises(DataError, match=rf"new_aan_pairs.train.tsv, line {number}: {named}"):
            create_task("retrieval", data_dir=tmp_path, processes=processes).prepare_data()
        lines[number - 1] = b"1.0\t1\t2\tone\ttwo\n"


@pytest.mark.parametrize("processes", [1, 3])
def test_the_first_bad_review_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(TASKS["text"], "chunk_size", 3)
    imdb(tmp_path)
    for kind, name in (("neg", "18_4.txt"), ("pos", "0_7.txt")):
        (tmp_path / "aclImdb" / "train" / kind / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"train/neg/18_4.txt is empty"):
        create_task("text", data_dir=tmp_path, processes=processes, **NEAR).prepare_data()


def test_missing_papers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no new_aan_pairs.train.tsv, .*tsv_data.*unpack lra_release.gz of github.com"):
        create_task("retrieval", data_dir=tmp_path).prepare_data()
    (aan(tmp_path / "tsv_data") / "new_aan_pairs.test.tsv").unlink()
    with pytest.raises(DataError, match=r"new_aan_pairs.test.tsv is missing beside the other splits"):
        create_task("retrieval", data_dir=tmp_path).prepare_data()
    (aan(tmp_path / "tsv_data") / "new_aan_pairs.test.tsv").write_bytes(b"")
    with pytest.raises(DataError, match=r"test of retrieval in .* has no sample"):
        create_task("retrieval", data_dir=tmp_path).prepare_data()


def test_bad_reviews_are_named(tmp_path: Path) -> None:
    def prepare() -> None:
        create_task("text", data_dir=tmp_path, **NEAR).prepare_data()

    with pytest.raises(DataError, match=r"no folder aclImdb .*aclImdb_v1.tar.gz.*ai.stanford.edu"):
        prepare()
    imdb(tmp_path)
    positive = tmp_path / "aclImdb" / "test" / "pos"
    for name, content, named in (
        ("1_5.txt", b"x", r"1_5.txt: expected a name <id>_<rating>.txt with a rating 7..10"),
        ("1.txt", b"x", r"1.txt: expected a name"),
        ("1_9.txt", b"\xff", r"1_9.txt is no text in UTF-8"),
        ("1_9.txt", b"", r"1_9.txt is empty"),
    ):
        (positive / name).write_bytes(content)
        with pytest.raises(DataError, match=named):
            prepare()
        (positive / name).unlink()
    for path in positive.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no review in test/pos"):
        prepare()
    positive.rmdir()
    with pytest.raises(DataError, match=r"test/pos is missing beside the other folders"):
        prepare()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_an_archive_cut_off_is_named(tmp_path: Path, kept: float) -> None:
    path = imdb(tmp_path / "source", archive=True) / "aclImdb_v1.tar.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    task = create_task("text", data_dir=tmp_path, official_dir=tmp_path / "source")
    with pytest.raises(DataError, match="aclImdb_v1.tar.gz is corrupt or cut off"):
        task.prepare_data()
    assert not task.folder.exists()


def test_the_vocabulary_has_room_for_253_characters(caplog: pytest.LogCaptureFixture) -> None:
    counts = np.arange(400)[::-1]
    assert choose_characters(counts, 1).tolist() == list(range(253))
    assert "399 characters are frequent; the rarest 146 become unknown" in caplog.text
    assert N_TOKENS == 259


@pytest.mark.parametrize(
    "options", [{"l_max": 1}, {"level": "word"}, {"min_freq": 0}, {"val_share": 0.6}, {"processes": 0}]
)
def test_bad_options(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        create_task("text", **options)
