"""Cases of several processes: what they send is what the cost model says, and the page of costs is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import cluster, ranks
from bench.case import OURS
from bench.cases import CASES, distributed
from bench.measure import errors, sent_bytes, summarize
from bench.report import Row
from bench.tables import gains_of_ranks, table
from longconv.distributed import Call, Machine, cost
from longconv.distributed.cost import METHODS

PAGE = Path(cluster.__file__).parent / "results" / "distributed.md"
CARDS = 4096


def test_two_processes_solve_it_and_send_what_the_model_says() -> None:
    """By every way; the gradients go back as the numbers came, but for the first rank the carry, which it gets."""
    channels, length, taps = 4, 4096, 1024
    for method in METHODS:
        it = distributed.problem(f"1x{channels}x{length}/K{taps}", method, 2, backward=True)
        assert errors(it)[0][OURS] < it.tolerance
        forward = cost(method, Call(1, channels, (length // 2,) * 2, taps, 0, False, 4, sharded=True))
        assert sent_bytes(it) == 2 * forward.sent - forward.to_next + CARDS
    assert len(ranks.others(2).processes) == 1


def test_one_process_sends_nothing() -> None:
    it = distributed.problem("1x2x64/K64", "channels", 1, backward=False)
    assert errors(it)[0][OURS] < it.tolerance
    assert sent_bytes(it) == 0


def row(name: str, seconds: float, sent: int) -> Row:
    return Row(name, 1, {OURS: summarize([seconds] * 2)}, {OURS: 1e-7}, {}, sent=sent)


def test_tables_tell_what_was_sent_and_what_more_processes_gave() -> None:
    rows = [row("distributed/alone/P1/1x2x8/K8/both", 3.0, 0), row("distributed/channels/P2/1x2x8/K8/both", 2.0, 5000)]
    assert gains_of_ranks(rows) == {"channels 1x2x8/K8/both, 2 processes": 1.5}
    text = table({"cpu": "x"}, rows)
    assert "| MB sent |" in text and "| 0.005 |" in text
    assert text.splitlines()[-1].startswith("Times as fast as in one process: channels 1x2x8/K8/both, 2 processes 1.50")
    assert gains_of_ranks(rows[1:]) == {}


def test_there_are_cases_of_every_way_and_number_of_processes() -> None:
    names = {tuple(name.split("/")[1:3]) for name in CASES if name.startswith("distributed/")}
    assert names == {("alone", "P1")} | {(method, f"P{size}") for method in METHODS for size in (2, 4)}


def test_the_page_of_costs_is_what_its_command_prints() -> None:
    assert PAGE.read_text() == cluster.page() + "\n"


def test_the_page_takes_other_figures() -> None:
    """A slow network between nodes makes ways that send less the cheaper ones."""
    words = "--node 4 --network 1 --speed 8 --plain 3 --bandwidth 100 --latency 5"
    assert cluster.parsed(words.split()) == pytest.approx(Machine(5e-6, 1e11, 8e12, 3e12, 4, 1e9))
    assert "GB/s within its node (NVLink) and 1 GB/s" in cluster.page(["--network", "1"])
    lines = [line.split(" | ") for line in cluster.page().splitlines() if line.startswith("| 64M | 64 |")]
    assert [line[2] for line in lines] == ["channels", "neighbours", "four_step"]
