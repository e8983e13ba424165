"""``python -m bench.video``: ConvS5 beside a ConvLSTM and a Transformer, by the length of the video.

- ``training``: forward and backward of one layer over T frames, ConvS5 beside ConvLSTM. The paper's models have equal
  widths: C features, ConvS5 a real state of 2 C numbers a pixel, ConvLSTM one of 2 C (h and c). A frame's share of the
  time is flat where the cost grows as T.
- ``generation``: a frame after T others, of ConvS5 and of ConvLSTM by ``step`` and of attention over the pixels of all
  frames with its cache of keys and values.

All are float32 on the CPU, in turn in one process; times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from longconv.mixers import VideoMixer
from longconv.models import VIDEO_MIXERS

Run = Callable[[], object]


def build(name: str, features: int) -> VideoMixer:
    """A layer of a width; ConvS5 has the same number of real numbers as a state as ConvLSTM."""
    options = {"conv_s5": {"d_state": 2 * features, "output": "standard"}}.get(name, {})
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


def medians(sides: Mapping[str, Run], rounds: int) -> dict[str, float]:
    """Median seconds of every side, run in turn after one round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def training(features: int, size: int, lengths: list[int], rounds: int) -> None:
    """Print the table of training steps."""
    print(f"training step, {features} features, {size} x {size}: ms, and ConvLSTM / ConvS5")
    print(f"{'T':>6} {'conv_s5':>9} {'conv_lstm':>10} {'ratio':>6} {'us a frame, conv_s5':>20}")
    for frames in lengths:
        sides = {name: training_step(name, features, size, frames) for name in ("conv_s5", "conv_lstm")}
        t = medians(sides, rounds)
        ratio, each = t["conv_lstm"] / t["conv_s5"], 1e6 * t["conv_s5"] / frames
        print(
            f"{frames:>6} {1e3 * t['conv_s5']:9.1f} {1e3 * t['conv_lstm']:10.1f} {ratio:6.2f} {each:20.0f}", flush=True
        )


def generation(features: int, size: int, lengths: list[int], rounds: int) -> None:
    """Print the table of generated frames."""
    print(f"a generated frame after T, {features} features, {size} x {size}: ms, and attention / ConvS5")
    print(f"{'T':>6} {'conv_s5':>9} {'conv_lstm':>10} {'attention':>10} {'ratio':>7}")
    for frames in lengths:
        t = medians({name: next_frame(name, features, size, frames) for name in VIDEO_MIXERS}, rounds)
        cells = "".join(f"{1e3 * t[name]:10.3f}" for name in VIDEO_MIXERS)
        print(f"{frames:>6}{cells} {t['frame_attention'] / t['conv_s5']:7.2f}", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.video", description="time a layer of video")
    parser.add_argument("--tables", nargs="+", default=["training", "generation"], choices=("training", "generation"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256, 512], help="frames T")
    parser.add_argument("--features", type=int, default=32)
    parser.add_argument("--size", type=int, default=16, help="height and width")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, cpu, threads: {arguments.threads}, float32")
    tables = {"training": training, "generation": generation}
    for name in arguments.tables:
        tables[name](arguments.features, arguments.size, arguments.lengths, arguments.rounds)


if __name__ == "__main__":
    main()
