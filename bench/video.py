"""``python -m bench.video``: ConvS5 beside a ConvLSTM and a Transformer, by the length of the video.

- ``training``: forward and backward of one layer over T frames, ConvS5 beside ConvLSTM. The paper's models have equal
  widths: C features, ConvS5 a real state of 2 C numbers a pixel, ConvLSTM one of 2 C (h and c). A frame's share of the
  time is flat where the cost grows as T.
- ``generation``: a frame after T others, of ConvS5 and of ConvLSTM by ``step`` and of attention over the pixels of all
  frames with its cache of keys and values.

All are float32 on the CPU, in turn in one process; times are medians. With ``--output`` the results are written as
those of ``python -m bench run``, for ``table`` and ``compare``. The error is that of ConvS5 frame by frame beside all
frames at once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from bench.case import OURS
from bench.machine import describe, restart_warm
from bench.measure import Timing, WrongResultError, relative_error, summarize
from bench.report import Row, save
from longconv.mixers import VideoMixer
from longconv.models import VIDEO_MIXERS

Run = Callable[[], object]
OUR_LAYER = "conv_s5"
"""The side that is the library's."""


def build(name: str, features: int) -> VideoMixer:
    """A layer of a width; ConvS5 has the same number of real numbers as a state as ConvLSTM."""
    options = {OUR_LAYER: {"d_state": 2 * features, "output": "standard"}}.get(name, {})
    return VIDEO_MIXERS[name](features, **options)


def training_step(name: str, features: int, size: int, frames: int) -> Run:
    """Forward and backward of a layer over a video."""
    mixer, u = build(name, features), torch.randn(1, frames, features, size, size)

    def run() -> None:
        mixer.zero_grad()
        mixer(u).sum().backward()

    return run


def next_frame(name: str, features: int, size: int, frames: int) -> Run:
    """One more frame after a video, whose state is filled in without being computed where it only has to be there."""
    mixer = build(name, features).eval()
    u = torch.randn(1, 2, features, size, size)
    with torch.no_grad():
        _, state = mixer.prefill(u)
        if name == "frame_attention":
            shape = (1, frames, size, size, features)
            state = state._replace(keys=torch.randn(shape), values=torch.randn(shape))

    @torch.no_grad()
    def run() -> Tensor:
        y, _ = mixer.step(u[:, 0], state)
        return y

    return run


def timings(sides: Mapping[str, Run], rounds: int) -> dict[str, Timing]:
    """Medians and quartiles of every side, run in turn after one round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: summarize(values) for name, values in times.items()}


@torch.no_grad()
def streaming_error(features: int, size: int, frames: int = 16) -> float:
    """How far ConvS5 frame by frame is from ConvS5 on all frames at once; a WrongResultError where that is wrong."""
    mixer, u = build(OUR_LAYER, features).eval(), torch.randn(1, frames, features, size, size)
    state, outputs = mixer.init_state(1), []
    for u_t in u.unbind(1):
        y_t, state = mixer.step(u_t, state)
        outputs.append(y_t)
    error = relative_error(torch.stack(outputs, 1), mixer(u))
    if not error < 1e-5:
        raise WrongResultError(f"ConvS5 frame by frame is wrong by {error:.1e}, no time is reported")
    return error


def training(features: int, size: int, lengths: list[int], rounds: int) -> list[Row]:
    """Print the table of training steps, and return it."""
    print(f"training step, {features} features, {size} x {size}: ms, and ConvLSTM / ConvS5")
    print(f"{'T':>6} {'conv_s5':>9} {'conv_lstm':>10} {'ratio':>6} {'us a frame, conv_s5':>20}")
    rows, error = [], streaming_error(features, size)
    for frames in lengths:
        sides = {name: training_step(name, features, size, frames) for name in (OUR_LAYER, "conv_lstm")}
        times = timings(sides, rounds)
        t = {name: timing.median for name, timing in times.items()}
        ratio, each = t["conv_lstm"] / t[OUR_LAYER], 1e6 * t[OUR_LAYER] / frames
        print(
            f"{frames:>6} {1e3 * t[OUR_LAYER]:9.1f} {1e3 * t['conv_lstm']:10.1f} {ratio:6.2f} {each:20.0f}", flush=True
        )
        rows.append(_row(f"video/training/T{frames}", times, error))
    return rows


def generation(features: int, size: int, lengths: list[int], rounds: int) -> list[Row]:
    """Print the table of generated frames, and return it."""
    print(f"a generated frame after T, {features} features, {size} x {size}: ms, and attention / ConvS5")
    print(f"{'T':>6} {'conv_s5':>9} {'conv_lstm':>10} {'attention':>10} {'ratio':>7}")
    rows, error = [], streaming_error(features, size)
    for frames in lengths:
        times = timings({name: next_frame(name, features, size, frames) for name in VIDEO_MIXERS}, rounds)
        t = {name: timing.median for name, timing in times.items()}
        cells = "".join(f"{1e3 * t[name]:10.3f}" for name in VIDEO_MIXERS)
        print(f"{frames:>6}{cells} {t['frame_attention'] / t[OUR_LAYER]:7.2f}", flush=True)
        rows.append(_row(f"video/generation/T{frames}", times, error))
    return rows


def _row(case: str, times: Mapping[str, Timing], error: float) -> Row:
    """A case whose first side is ConvS5; the others are models of their own, with no error to it."""
    sides = {OURS if name == OUR_LAYER else name: timing for name, timing in times.items()}
    return Row(case, torch.get_num_threads(), sides, {OURS: error}, {})


def main() -> None:
    """Print the tables, and write them where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.video", description="time a layer of video")
    parser.add_argument("--tables", nargs="+", default=["training", "generation"], choices=("training", "generation"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256, 512], help="frames T")
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--size", type=int, default=16, help="height and width")
    parser.add_argument("--rounds", type=int, default=5, help="timed ones, at least 2")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file")
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error(f"--rounds is {arguments.rounds}, expected at least 2")
    restart_warm()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, cpu, threads: {arguments.threads}, float32")
    tables = {"training": training, "generation": generation}
    rows: list[Row] = []
    for name in arguments.tables:
        rows += tables[name](arguments.features, arguments.size, arguments.lengths, arguments.rounds)
    if arguments.output:
        save(arguments.output, describe(), rows)


if __name__ == "__main__":
    main()
