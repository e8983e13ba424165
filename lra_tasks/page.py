"""A report as one file of HTML: tables, charts and pictures, with nothing to load from elsewhere."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from lra_tasks.charts import N_COLOURS, accuracy_chart, length_chart, loss_chart
from lra_tasks.data import TASKS, TaskInfo
from lra_tasks.recipes import length_of
from lra_tasks.results import Run
from lra_tasks.tables import kind_of, tables, variant

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_TEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
_TEX |= {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class Detail:
    """What the page shows of one run.

    Args:
        run: the run.
        result: its result, in words.
        curve: its losses; None where its history is gone.
        pictures: data URIs and descriptions.
        config: its configuration as YAML.
    """

    run: Run
    result: str
    curve: Markup | None
    pictures: list[tuple[str, str]]
    config: str


@dataclass(frozen=True)
class Section:
    """What the page shows of one task.

    Args:
        name: the task.
        info: its facts.
        chart: accuracies over epochs and time; None where there are none.
        details: its runs.
    """

    name: str
    info: TaskInfo
    chart: Markup | None
    details: list[Detail]


@cache
def environment() -> Environment:
    """The templates; what is put into HTML is escaped, and a name without a value is an error."""
    found = Environment(
        loader=PackageLoader("lra_tasks"),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["tex"] = escape_tex
    return found


def escape_tex(text: str) -> str:
    r"""A text with LaTeX's special characters made plain.

    >>> print(escape_tex("50 % of a_b"))
    50 \% of a\_b
    """
    return "".join(_TEX.get(sign, sign) for sign in text)


def page(runs: Sequence[Run]) -> str:
    """The page of runs: all tables, accuracy against length, then task after task with curves, filters and settings.

    Args:
        runs: finished runs.
    """
    scored = [run for run in runs if kind_of(run) == "accuracy"]
    lengths = {(run.config.task, length_of(run.config.task, run.config.recipe.data)) for run in scored}
    names = sorted({run.config.task for run in runs})
    devices = sorted({str(run.metrics.get("device", "unknown device")) for run in runs})
    torches = sorted({str(run.metrics.get("versions", {}).get("torch", "unknown")) for run in runs})
    return environment().get_template("page.html.j2").render(
        n_runs=len(runs),
        made=time.strftime("%Y-%m-%d %H:%M %Z"),
        machine=f"{', '.join(devices)}; torch {', '.join(torches)}",
        tables=tables(runs),
        lengths=length_chart(scored, name="lengths") if len(lengths) > 1 else None,
        sections=[_section(name, [run for run in runs if run.config.task == name]) for name in names],
        n_colours=N_COLOURS,
    ) + "\n"  # fmt: skip


def _section(name: str, runs: Sequence[Run]) -> Section:
    scored = [run for run in runs if kind_of(run) == "accuracy" and run.history()]
    chart = accuracy_chart(scored, name=f"task-{name}") if scored else None
    return Section(name, TASKS[name].info, chart, [_detail(run, f"{name}-{i}") for i, run in enumerate(runs)])


def _detail(run: Run, name: str) -> Detail:
    metrics, folder = run.metrics, run.folder
    results = {
        "accuracy": lambda: f"test accuracy {100 * metrics['test/accuracy']:.2f} %",
        "video": lambda: "rollouts of video",
        "pretraining": lambda: f"loss {metrics['test/loss']:.4f} of {metrics['objective']} inputs",
    }
    pictures = {
        folder.filters: f"Filters of {run.name} over the lag, before and after training, layer by layer.",
        folder.contact_sheet: f"Predicted videos of {run.name} beside the true ones, frame by frame.",
    }
    return Detail(
        run=run,
        result=f"{run.config.mixer}, {variant(run)}, seed {run.config.seed}: {results[kind_of(run)]()}",
        curve=loss_chart(run, name=f"loss-{name}") if run.history() else None,
        pictures=[(_data_uri(path), text) for path, text in pictures.items() if path.is_file()],
        config=yaml.safe_dump(run.config.to_dict(), sort_keys=False),
    )


def _data_uri(path: Path) -> str:
    """A PNG file as an address that holds its content."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
