"""Plots say what they show."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from longconv.mixers import create_mixer
from lra_tasks import plots
from lra_tasks.data import create_task
from lra_tasks.plots import plot_filters


@pytest.mark.parametrize(("d_model", "shown"), [(3, 3), (9, 6)])
def test_filters_are_labelled_with_what_is_drawn(
    d_model: int, shown: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: drawn.append(figure))
    assert plot_filters(create_mixer("s4d", d_model, channels=2), 50, tmp_path / "filters.png", title="filters")
    (axis,) = drawn[0].axes
    assert axis.get_xlabel() == "lag (samples)"
    assert drawn[0].get_suptitle() == f"filters; {shown} of {d_model} features, channel 1 of 2"
    curves = [line for line in axis.lines if len(line.get_xdata()) == 50]  # type: ignore[arg-type]
    assert len(curves) == shown


def test_the_length_of_a_task_is_what_its_inputs_are_cut_to() -> None:
    assert create_task("listops", l_max=512).length == 512
    assert create_task("smnist").length == 784
