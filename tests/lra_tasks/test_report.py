"""The report: ours beside the published accuracies, in three forms."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
from pathlib import Path

import pytest

from longconv.mixers import list_mixers
from lra_tasks.data import TASKS, VIDEO_TASKS
from lra_tasks.published import PUBLISHED, Published, find_published
from lra_tasks.results import read_run
from lra_tasks.tables import COLUMNS
from tests.lra_tasks.running import main, read_metrics, run


def test_csv_has_our_accuracy_and_the_published_one_with_its_model(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["report", str(finished), "--format", "csv"])
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    metrics = read_metrics(finished)
    assert row["task"] == "smnist" and row["mixer"] == "s4d"
    assert row["accuracy %"] == f"{100 * metrics['test/accuracy']:.2f}"
    assert (row["published %"], row["published model"]) == ("99.63", "S4")
    assert row["parameters"] == str(metrics["parameters"])


def test_markdown_is_a_table(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["report", str(finished), str(finished), "--format", "markdown"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert set(lines[1]) <= set("|-: ")


def test_text_has_every_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a narrow screen too, each row stands whole on one line; one that saw a part of the test says so."""
    monkeypatch.setenv("COLUMNS", "40")
    folder = tmp_path / "a-run-of-smnist-with-a-name-of-some-length"
    shutil.copytree(finished, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("limit_test_batches: 4", "limit_test_batches: 1.0"))
    run(["report", str(finished), str(folder)])
    lines = capsys.readouterr().out.splitlines()
    metrics = read_metrics(finished)
    cells = [
        "smnist",
        "s4d",
        "quick",
        *["part", "of", "the", "test"],
        str(metrics["parameters"]),
        f"{100 * metrics['test/accuracy']:.2f}",
        "1",
        "99.63",
        "S4",
        "arXiv:2111.00396",
    ]
    for name, expected in (("finished", cells), (folder.name, [*cells[:3], *cells[7:]])):
        (row,) = [line for line in lines if line.strip().startswith(f"{name} ")]
        assert row.replace(",", "").split()[1:-3] == expected
    assert any(" ".join(line.split()) == " ".join(COLUMNS.values()) for line in lines)


def test_missing_unfinished_and_damaged_runs_are_named_and_the_others_reported(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("unfinished", "damaged", "sparse", "wrong", "list", "settings", "typed", "foreign")
    for name in names:
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "unfinished" / "metrics.json").unlink()
    for name, text in (
        ("damaged", "{"),
        ("sparse", '{"test/accuracy": 0.5}'),
        ("wrong", '{"test/accuracy": "0.5", "parameters": 1, "wall_time_s": 1, "epochs": 3}'),
        ("list", "[]"),
    ):
        (tmp_path / name / "metrics.json").write_text(text)
    config = (finished / "config.yaml").read_text()
    (tmp_path / "settings" / "config.yaml").write_text(re.sub(r"data:\n  .*\n", "data: null\n", config, count=1))
    (tmp_path / "typed" / "config.yaml").write_text(config.replace("task: smnist", "task: [smnist]"))
    (tmp_path / "foreign" / "config.yaml").write_text(config.replace("task: smnist", "task: smnits"))
    bad = [str(tmp_path / name) for name in ("missing", *names)]
    assert main(["report", *bad, str(finished), "--format", "csv"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 2
    assert all(path in captured.err for path in bad) and "3 of 3 epochs" in captured.err
    assert "parameters is None, expected a number" in captured.err and "Traceback" not in captured.err
    assert main(["report", *bad]) == 1


def test_a_damaged_history_does_not_hide_the_result(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    history = tmp_path / "run" / "history.csv"
    history.write_text("epoch,seconds,train/loss,val/accuracy,val/loss\n1,1,1,1,0.5,7,8\n2,1,1,1,x\n")
    first, second = read_run(tmp_path / "run").history()
    assert first["val/loss"] == 0.5 and math.isnan(second["val/loss"])
    for content in (b"\xff\xfe\xff", b"epoch,val/loss\n1,0.5\n"):
        history.write_bytes(content)
        assert read_run(tmp_path / "run").history() == []
        assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize(
    ("model", "average"),
    [
        ("S4 v1", 80.48),
        ("S4", 86.09),
        ("DSS", 81.88),
        ("S4D-LegS", 84.89),
        ("S4D-Inv", 85.50),
        ("SGConv", 87.17),
        ("Liquid-S4", 87.32),
        ("S5", 87.46),
        ("MEGA", 88.21),
        ("Transformer", 53.66),
        ("Performer", 51.18),
    ],
)
def test_published_accuracies_have_the_published_average(model: str, average: float) -> None:
    """The papers count a task on which a model fails as 50 %."""
    tasks = ("listops", "text", "retrieval", "image", "pathfinder32", "pathx")
    accuracies = [PUBLISHED[task].get(model, 50.0) for task in tasks]
    assert sum(accuracies) / 6 == pytest.approx(average, abs=0.02)


def test_associative_recall_has_no_published_accuracy() -> None:
    """Papers give those of other vocabularies and numbers of pairs."""
    assert find_published("associative_recall", "hyena") is None


def test_larger_pictures_have_that_of_long_convolutions_alone() -> None:
    for task, accuracy, source in (("path256", 92.2, "arXiv:2302.06646"), ("path512", 96.1, "arXiv:2311.05908")):
        assert find_published(task, "long_conv") == Published("LongConv", accuracy, source)
        assert find_published(task, "s4d") is None
    assert find_published("pathfinder64", "s4d") is None
    assert find_published("listops", "long_conv") == Published("S4", 59.60, "arXiv:2111.00396")


UNPUBLISHED = {"associative_recall", "fashion", "spam", "espeak35", "pathfinder64", "path256", "path512", *VIDEO_TASKS}


@pytest.mark.parametrize("task", sorted(set(TASKS) - UNPUBLISHED))
@pytest.mark.parametrize("mixer", list_mixers(video=False))
def test_every_task_and_mixer_has_a_published_accuracy_beside_it(task: str, mixer: str) -> None:
    published = find_published(task, mixer)
    assert published is not None and PUBLISHED[task][published.model] == published.accuracy


def test_the_variant_of_s4d_is_told_by_its_init() -> None:
    found = [find_published("listops", "s4d", {"init": init}) for init in ("legs", "inv", "lin", "quad")]
    assert [entry and entry.model for entry in found] == ["S4D-LegS", "S4D-Inv", "S4", "S4"]
    assert find_published("listops", "s4d") == find_published("listops", "s4d", {"init": "lin"})
    lin = find_published("sc35", "s4d", {"init": "lin"})
    assert lin is not None and lin.model == "S4D-Lin"
    assert find_published("no such task", "s4d") is None
