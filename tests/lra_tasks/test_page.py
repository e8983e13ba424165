"""The page of a report: well-formed, complete, readable by machines and people, and alone in its file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lra_tasks.charts import accuracy_chart, look_of
from lra_tasks.page import page as page_of
from lra_tasks.results import RunFolder, read_run
from lra_tasks.tables import COLUMNS, Table, group_seeds, table_row
from tests.lra_tasks.running import main, run, tiny

VOID = {"meta", "img", "br", "hr", "link", "input"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Tree(HTMLParser):
    """The elements of a page; an unclosed or crossed one fails."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.append((self.open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, finished: Path, data_dir: Path) -> Path:
    """A folder of three runs of two tasks, two of them alike but for the seed, and one that pretrained."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copytree(finished, folder / "digits-0")
    one = ("--trainer.max_epochs", "1")
    run(tiny(folder / "digits-1", data_dir, "--seed", "1"))
    small = ("--data.seq_len", "8", "--data.n_train", "60", "--data.n_val", "20", "--data.n_test", "20")
    run(tiny(folder / "recall <b>", data_dir, *small, *one, task="associative_recall"))
    run(["pretrain", *tiny(folder / "inputs", data_dir, *one)[1:]])
    return folder


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    run(["report", str(runs), "--output", str(path)])
    return path


@pytest.fixture(scope="module")
def tree(page: Path) -> Tree:
    return Tree(page.read_text())


def test_nothing_is_loaded_from_elsewhere(page: Path, tree: Tree) -> None:
    for tag, attributes in tree.elements:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
        assert tag not in ("script", "link", "iframe", "object", "embed")
    text = page.read_text()
    assert set(re.findall(r"url\(\s*.", text)) <= {"url(#"} and "@import" not in text
    assert "http://" not in text and "https://" not in text


def test_every_run_is_in_it(tree: Tree, runs: Path) -> None:
    names = {folder.name for folder in runs.iterdir()}
    summaries = [text for tag, text in tree.texts if tag == "strong"]
    assert sorted(summaries) == sorted(names) and "recall <b>" in names
    pictures = [attributes["alt"] or "" for attributes in tree.all("img")]
    curves = [attributes["aria-label"] or "" for attributes in tree.all("svg")]
    for name in names:
        assert any(name in text for text in pictures) and any(name in text for text in curves), name
    accuracy = 100 * read_run(runs / "digits-0").metrics["test/accuracy"]
    assert any(f"test accuracy {accuracy:.2f} %" in text for _, text in tree.texts)


def test_machines_can_read_it(tree: Tree) -> None:
    """Language, title, one first heading and no level left out, captions, scopes, alternative texts, unique ids."""
    assert tree.all("html") == [{"lang": "en"}] and len(tree.all("title")) == len(tree.all("main")) == 1
    levels = [int(tag[1]) for tag, _ in tree.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(tree.all("caption")) == len(tree.all("table")) == 2
    assert {attributes.get("scope") for attributes in tree.all("th")} == {"col", "row"}
    assert all(attributes.get("alt") for attributes in tree.all("img"))
    assert all(svg.get("role") == "img" and svg.get("aria-label") for svg in tree.all("svg"))
    ids = [attributes["id"] for _, attributes in tree.elements if "id" in attributes]
    assert not [name for name, count in Counter(ids).items() if count > 1]
    for tag, attributes in tree.elements:
        target = attributes.get("href") or attributes.get("aria-labelledby")
        if target and not target.startswith("data:"):
            assert target.removeprefix("#") in ids, (tag, target)


def test_charts_take_the_colours_of_the_page(page: Path, tree: Tree) -> None:
    text = page.read_text()
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert used <= set(re.findall(r"(--[\w-]+):", text)) and {"--rule", "--series-0", "--series-1"} <= used
    drawn = re.findall(r"(?:stroke|fill): (#[0-9a-f]{6})", text)
    assert not drawn, "a colour of its own is unreadable in one of the two modes"


def test_seeds_are_one_row_with_their_deviation(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["report", str(runs), "--format", "markdown"])
    lines = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if "digits" in line]
    (row,) = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
    accuracies = [100 * read_run(runs / f"digits-{seed}").metrics["test/accuracy"] for seed in (0, 1)]
    assert row["run"] == "digits" and row["seeds"] == "2"
    assert float(row["accuracy %"]) == pytest.approx(sum(accuracies) / 2, abs=0.006)
    assert float(row["deviation"]) == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5, abs=0.006)
    assert float(row["memory MB"]) > 100 and float(row["samples/s"]) > 0
    same, other = read_run(runs / "digits-0"), read_run(runs / "digits-1")
    assert [len(group) for group in group_seeds([same, same, other])] == [2, 1]


def test_runs_are_one_row_only_if_they_differ_in_the_seed(runs: Path) -> None:
    """Or in what has no part in the result, or in the seed of what they started from."""
    same, other = read_run(runs / "digits-0"), read_run(runs / "digits-1")

    def groups(changes: dict[str, dict[str, Any]], start: str | None = None) -> int:
        config = replace(other.config, recipe=other.config.recipe.override(changes), from_run=start)
        first = same if start is None else replace(same, config=replace(same.config, from_run="runs/before-seed0"))
        return len(group_seeds([first, replace(other, config=config)]))

    assert groups({"trainer": {"accelerator": "auto"}, "data": {"num_workers": 2}}) == 1
    assert groups({}, "runs/before-seed11") == 1
    assert groups({}, "runs/another-seed0") == 2
    for changes in ({"early_stopping": 2}, {"devices": 2}, {"max_epochs": 9}):
        assert groups({"trainer": changes}) == 2


@pytest.mark.parametrize(
    ("names", "called"),
    [
        (["digits-0", "digits-1"], "digits"),
        (["digits-s4d-seed10", "digits-s4d-seed11"], "digits-s4d"),
        (["s4", "s4-again"], "s4"),
        (["one", "two"], "one ..."),
        (["seed0", "seed1"], "seed0 ..."),
    ],
)
def test_the_name_of_several_runs(names: list[str], called: str, runs: Path) -> None:
    run_ = read_run(runs / "digits-0")
    assert table_row([replace(run_, folder=RunFolder(Path(name))) for name in names])[0] == called


def test_a_chart_of_one_epoch_has_no_others(runs: Path) -> None:
    chart = accuracy_chart([read_run(runs / "digits-1")], name="one")
    by_epoch, _ = chart.split(">epoch</text>")
    assert re.findall(r">([\d.]+)</text>", by_epoch)[0] == "1"


def test_one_task_at_two_lengths_is_drawn(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "recall <b>", tmp_path / "short")
    assert "against length" not in page_of([read_run(tmp_path / "short")])
    shutil.copytree(runs / "recall <b>", tmp_path / "long")
    config = tmp_path / "long" / "config.yaml"
    config.write_text(config.read_text().replace("seq_len: 8", "seq_len: 16"))
    assert "against length" in page_of([read_run(tmp_path / name) for name in ("short", "long")])


def test_many_mixers_look_different() -> None:
    looks = [tuple(look_of(number).values()) for number in range(64)]
    assert len(set(looks)) == 64
    assert len({colour for colour, _ in looks[:8]}) == len({marker for _, marker in looks[:8]}) == 8


def test_negative_numbers_stand_to_the_right() -> None:
    rows = [("a", "-1.5", "-"), ("b", "", "1")]
    assert Table("a title", dict.fromkeys("xyz", ""), rows, "").numeric == [False, True, False]


def test_latex_is_a_table(runs: Path, tmp_path: Path) -> None:
    run(["report", str(runs), "--output", str(tmp_path / "table.tex")])
    text = (tmp_path / "table.tex").read_text()
    rows = [line.removesuffix(r" \\").strip() for line in text.splitlines() if line.endswith(r"\\")]
    columns = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert [row.count(" & ") + 1 for row in rows] == [len(columns[0])] * 3 + [len(columns[1])] * 2
    assert r"associative\_recall" in text and r"test \%" in text and r"recall \textless{}b\textgreater{}" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_what_is_left_out_is_said(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs / "digits-0"), str(tmp_path), "--output", str(tmp_path / "page.html")]) == 1
    assert str(tmp_path) in capsys.readouterr().err and (tmp_path / "page.html").is_file()


def test_a_report_that_cannot_be_written_or_has_no_form_is_refused(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "page.html"
    assert main(["report", str(runs / "digits-0"), "--output", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"cannot write {path}: " in error and "--resume" not in error
    assert main(["report", str(runs / "digits-0"), "--output", str(tmp_path / "page.pdf")]) == 2
    assert "page.pdf', which ends as no form does (.txt, .csv, " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# What a browser makes of the page, written into its title.
MEASURE = """<script>addEventListener("load", () => {
  for (const it of document.querySelectorAll("details")) it.open = true;
  const root = document.documentElement, ink = getComputedStyle(document.body).color;
  const hidden = [...document.querySelectorAll("img, svg")].filter(it => it.getBoundingClientRect().width < 100);
  const empty = [...document.images].filter(it => !it.naturalWidth);
  const rows = document.querySelectorAll("tbody tr").length;
  const found = [root.scrollWidth <= innerWidth, hidden.length, empty.length, rows];
  document.title = "found " + [...found, document.querySelectorAll("svg text").length > 20, ink].join(" | ");
})</script></body>"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_it(width: int, page: Path, tmp_path: Path) -> None:
    """Nothing is wider than the window, every picture is drawn, and every row is there."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(BROWSERS)})")
    text = re.sub(r"<meta http-equiv=.*?>", "", page.read_text())  # lets the script of this test run
    (tmp_path / "page.html").write_text(text.replace("</body>", MEASURE))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [browser, *options, f"--window-size={width},900", "--virtual-time-budget=4000", "--dump-dom"]
    done = subprocess.run(
        [*command, (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    (found,) = re.findall(r"<title>found (.*?)</title>", done.stdout)
    assert found.split(" | ")[:5] == ["true", "0", "0", "3", "true"], found
