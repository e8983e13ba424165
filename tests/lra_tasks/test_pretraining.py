"""Self-pretraining: what is hidden, what is scored, what is carried over, and what is refused."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lra_tasks.config import RunConfig
from lra_tasks.data import TASKS, VIDEO_TASKS
from lra_tasks.evaluation import build, evaluate, restore
from lra_tasks.pretraining import N_LEVELS, Predictor, PretrainingModule, choose_hidden
from lra_tasks.recipes import OptimizerSettings, PretrainingSettings, create_recipe, for_pretraining
from lra_tasks.results import RunFolder, read_config, read_run
from tests.lra_tasks.running import main, read_metrics, read_weights, run, tiny

SMALL = ("--data.n_train", "40", "--data.n_val", "20", "--data.n_test", "20", "--data.min_length", "5")
LISTOPS = (*SMALL, "--data.max_length", "40", "--data.l_max", "40", "--data.processes", "1")


def pretrain(run_dir: Path, data_dir: Path, *extra: str, task: str = "listops") -> list[str]:
    return ["pretrain", *tiny(run_dir, data_dir, *(LISTOPS if task == "listops" else ()), *extra, task=task)[1:]]


def train(run_dir: Path, data_dir: Path, *extra: str, task: str = "listops") -> list[str]:
    return tiny(run_dir, data_dir, *(LISTOPS if task == "listops" else ()), *extra, task=task)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pretrained"
    run(pretrain(folder, data_dir))
    return folder


def module(n_outputs: int, levels: tuple[float, float] | None = None, **options: Any) -> PretrainingModule:
    torch.manual_seed(0)
    settings = PretrainingSettings(**options.pop("pretraining"))
    model = Predictor(n_outputs, masked=settings.objective == "masked", d_model=8, n_layers=1, **options).double()
    return PretrainingModule(model, OptimizerSettings(), settings, levels=levels, seed=0)


def random_lengths() -> Tensor:
    return torch.tensor([20, 7, 1])


# --- What is hidden ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 0.5, 1.0])
def test_the_share_of_hidden_positions_is_the_one_asked_for(ratio: float) -> None:
    lengths = torch.tensor([1000, 333, 1])
    hidden = choose_hidden((3, 1000), ratio, lengths, torch.Generator().manual_seed(0))
    assert hidden.sum(1).tolist() == [torch.tensor(ratio * n).ceil().int().item() for n in lengths.tolist()]
    assert not (hidden & (torch.arange(1000) >= lengths[:, None])).any()
    if ratio == 0.5:  # spread evenly
        assert all(0.35 < part.float().mean() < 0.65 for part in hidden[0].chunk(10))
        assert not torch.equal(hidden, choose_hidden((3, 1000), ratio, lengths, torch.Generator().manual_seed(1)))


def test_hidden_inputs_are_not_seen_and_the_others_are() -> None:
    hidden = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)) < 0.5
    tokens = torch.randint(9, (2, 20), generator=torch.Generator().manual_seed(1))
    values = torch.randn(2, 20, 3, generator=torch.Generator().manual_seed(1)).double()
    for x, other, model in (
        (tokens, (tokens + 1) % 9, module(9, n_tokens=9, pretraining={}).model),
        (values, values + 1, module(3, d_input=3, pretraining={"loss": "l1"}).model),
    ):
        mask = hidden if x.ndim == 2 else hidden[..., None]
        seen = model(x, hidden, hidden)
        assert torch.equal(seen, model(torch.where(mask, other, x), hidden, hidden))
        assert not torch.allclose(seen, model(torch.where(mask, x, other), hidden, hidden))


# --- What is scored ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["masked", "causal"])
@pytest.mark.parametrize("kind", ["tokens", "values", "levels"])
def test_the_loss_is_the_mean_over_what_is_asked(kind: str, objective: str) -> None:
    """Position by position, without padding: what stands at t of a hidden position, or at t + 1."""
    generator, lengths = torch.Generator().manual_seed(3), random_lengths()
    settings = {"objective": objective, "mask_ratio": 0.3, "loss": "l1" if kind == "values" else "cross_entropy"}
    if kind == "tokens":
        x, levels = torch.randint(9, (3, 20), generator=generator), None
        it = module(9, n_tokens=9, pretraining=settings)
    else:
        gray = torch.randint(256, (3, 20, 1), generator=generator)
        x, levels = (gray / 255 - 0.5).double() / 0.5, (-1.0, 1.0) if kind == "levels" else None
        it = module(N_LEVELS if levels else 1, levels, d_input=1, pretraining=settings)
    errors = []
    hidden = choose_hidden((3, 20), 0.3, lengths, torch.Generator().manual_seed(5))
    for i, n in enumerate(lengths.tolist()):
        one = x[i : i + 1, :n]
        mask = hidden[i : i + 1, :n] if objective == "masked" else None
        predicted = it.model(one, mask, torch.ones(1, n, dtype=torch.bool))
        for t in range(n):
            if objective == "masked" and hidden[i, t]:
                errors.append((predicted[t], i, t))
            if objective == "causal" and t + 1 < n:
                errors.append((predicted[t], i, t + 1))

    def error(prediction: Tensor, i: int, t: int) -> Tensor:
        if kind == "values":
            return (prediction - x[i, t]).abs().mean()
        return F.cross_entropy(prediction, x[i, t] if kind == "tokens" else gray[i, t, 0])

    want = torch.stack([error(*each) for each in errors]).mean()
    got = it._loss(x, lengths, torch.Generator().manual_seed(5))
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=0)
    got.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in it.model.parameters())


def test_a_batch_with_nothing_to_predict_has_no_loss() -> None:
    it = module(9, n_tokens=9, pretraining={"objective": "causal"})
    loss = it._loss(torch.zeros(2, 5, dtype=torch.long), torch.tensor([1, 1]), torch.Generator())
    assert loss.item() == 0
    loss.backward()


# --- Runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "objective", "ratio", "loss"),
    [
        ("listops", "masked", 0.1, "cross_entropy"),
        ("text", "masked", 0.15, "cross_entropy"),
        ("retrieval", "masked", 0.15, "cross_entropy"),
        ("image", "masked", 0.5, "l1"),
        ("pathfinder32", "masked", 0.5, "cross_entropy"),
        ("pathx", "masked", 0.5, "cross_entropy"),
        ("sc35", "masked", 0.5, "l1"),
        ("smnist", "causal", 0.5, "l1"),
    ],
)
def test_the_published_objective_is_the_default(task: str, objective: str, ratio: float, loss: str) -> None:
    recipe = for_pretraining(task, create_recipe(task, "s4d"))
    assert recipe.pretraining == PretrainingSettings(objective, ratio, loss)  # type: ignore[arg-type]
    assert recipe.optimizer.schedule == "constant"


@pytest.mark.parametrize(
    ("task", "mixer", "preset"),
    [("associative_recall", "s4d", "quick"), ("listops", "s4d", "paper"), ("listops", "s5", "paper")],
)
def test_no_part_learns_faster_than_the_published_rate(task: str, mixer: str, preset: str) -> None:
    """Theirs are above it in training."""

    def fastest(settings: OptimizerSettings) -> float:
        return max(getattr(settings, name) or 0.0 for name in ("filter_lr", "dt_lr", "b_lr", "c_lr"))

    recipe = create_recipe(task, mixer, preset)
    used = for_pretraining(task, recipe).optimizer
    assert fastest(recipe.optimizer) > used.lr == 0.001 >= fastest(used)


@pytest.mark.parametrize("task", sorted(set(TASKS) - set(VIDEO_TASKS)))
def test_every_task_of_sequences_can_be_pretrained(task: str) -> None:
    recipe = for_pretraining(task, create_recipe(task, "s4d")).override({"model": {"d_model": 4, "n_layers": 1}})
    _, built = build(RunConfig(task, "s4d", "quick", 0, None, recipe))
    assert isinstance(built, PretrainingModule)


@pytest.mark.parametrize("extra", [(), ("--pretraining.objective", "causal", "--mixer_options.bidirectional", "false")])
def test_a_run_trains_on_from_a_pretrained_one(
    extra: tuple[str, ...], tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trunk's weights are those of the best checkpoint when training begins; head and masks are not theirs."""
    before, after = tmp_path / "before", tmp_path / "after"
    run(pretrain(before, data_dir, *extra))
    assert read_run(before).metrics["test/loss"] > 0
    options = extra[2:]
    frozen = ("--optimizer.lr", "1e-30", "--optimizer.filter_lr", "0", "--optimizer.weight_decay", "0")
    run(train(after, data_dir, "--from", str(before), *options, *frozen, "--model.norm", "batch"))
    old, new = read_weights(before, "best"), read_weights(after, "best")
    assert old["model.trunk.embedding.map.weight"].shape[0] == 18 + (not extra)
    names = [name for name, value in new.items() if name.startswith("model.trunk") and value.is_floating_point()]
    for name in names:
        if "running" not in name:
            torch.testing.assert_close(new[name], old[name][: len(new[name])], rtol=0, atol=1e-20)
    assert len(names) > 8 and not any("decoder" in name for name in new)
    fresh = build(read_config(RunFolder(after)))[1].state_dict()
    torch.testing.assert_close(new["model.head.weight"], fresh["model.head.weight"], rtol=0, atol=1e-20)
    assert f" from {before}" in capsys.readouterr().out
    shutil.rmtree(before)
    _, scores = evaluate(after)
    assert scores["test/accuracy"] == read_metrics(after)["test/accuracy"]
    run(["train", "--run-dir", str(after), "--resume", "--trainer.max_epochs", "4"])


def test_continuous_inputs_and_levels(tmp_path: Path, data_dir: Path) -> None:
    small = ("--data.n_samples", "100", "--data.processes", "1", "--trainer.max_epochs", "1")
    options = {"task": "pathfinder32"}
    run(pretrain(tmp_path / "before", data_dir, *small, **options))
    run(train(tmp_path / "after", data_dir, *small, "--from", str(tmp_path / "before"), **options))
    old, new = (read_weights(tmp_path / name, "best") for name in ("before", "after"))
    assert old["model.decoder.weight"].shape == (256, 8)
    assert old["model.trunk.embedding.map.weight"].shape == (8, 2)
    assert new["model.trunk.embedding.map.weight"].shape == (8, 1)


def test_a_run_trains_on_from_one_on_shorter_contours(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All its weights are those of the best checkpoint when training begins, the head's too."""
    small = ("--data.n_samples", "100", "--data.processes", "1", "--trainer.max_epochs", "1", "--model.norm", "batch")
    before, after = tmp_path / "before", tmp_path / "after"
    run(train(before, data_dir, *small, "--data.contour_length", "6", task="pathfinder32"))
    frozen = ("--optimizer.lr", "1e-30", "--optimizer.filter_lr", "0", "--optimizer.weight_decay", "0")
    run(train(after, data_dir, *small, "--from", str(before), *frozen, task="pathfinder32"))
    old, new = read_weights(before, "best"), read_weights(after, "best")
    assert old.keys() == new.keys() and "model.head.weight" in old
    for name, value in new.items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, old[name], rtol=0, atol=1e-20)
    assert f" from {before}" in capsys.readouterr().out
    run(["report", str(before), str(after), "--format", "csv"])
    rows = {row["run"]: row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
    assert rows["before"]["preset"].startswith("quick, contours of 6") and rows["before"]["published %"] == ""
    assert rows["after"]["preset"].startswith("quick, pretrained") and rows["after"]["published %"] == "94.20"
    for extra, named in (
        (("--model.d_model", "4"), "model.d_model is 8 there, 4 here"),
        (("--data.data_seed", "1"), "data.data_seed is 0 there, 1 here"),
        (("--model.pooling", "max"), "model.pooling is 'mean' there, 'max' here"),
    ):
        other = train(tmp_path / "other", data_dir, *small, "--from", str(before), *extra, task="pathfinder32")
        assert main(other) == 2
        assert named in capsys.readouterr().err
    capsys.readouterr()


def test_a_run_older_than_an_option_goes_on(tmp_path: Path, data_dir: Path) -> None:
    """Its configuration lacks the option, on disk and in the checkpoints: it has the default."""
    small = ("--data.n_samples", "100", "--data.processes", "1", "--model.norm", "batch")
    folder = RunFolder(tmp_path / "run")
    run(train(folder.path, data_dir, *small, "--trainer.max_epochs", "1", task="pathfinder32"))
    text = folder.config.read_text()
    folder.config.write_text(text.replace("  contour_length: 14\n", ""))
    assert folder.config.read_text() != text
    for path in (folder.last, folder.best):
        checkpoint = torch.load(path, weights_only=False)
        del checkpoint["run"]["config"]["data"]["contour_length"]
        torch.save(checkpoint, path)
    run(["train", "--run-dir", str(folder.path), "--resume", "--trainer.max_epochs", "2"])
    _, scores = evaluate(folder.path)
    assert scores["test/accuracy"] == read_metrics(folder.path)["test/accuracy"]
    longer = ("--data.contour_length", "6", "--trainer.max_epochs", "3")
    assert main(["train", "--run-dir", str(folder.path), "--resume", *longer]) == 2


def test_pretraining_learns(tmp_path: Path, data_dir: Path) -> None:
    """Closing brackets and ends are predictable from their surroundings."""
    longer = ("--trainer.limit_train_batches", "1.0", "--trainer.max_epochs", "8", "--optimizer.lr", "0.01")
    run(pretrain(tmp_path / "run", data_dir, *longer, "--model.dropout", "0"))
    lines = (tmp_path / "run" / "history.csv").read_text().splitlines()
    losses = [float(line.split(",")[2]) for line in lines[1:]]
    assert losses[-1] < losses[0] - 0.2


def test_it_is_evaluated_reported_and_resumed_like_training(
    pretrained: Path, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = read_metrics(pretrained)
    _, scores = evaluate(pretrained)
    assert scores == {"test/loss": metrics["test/loss"]}
    run(["evaluate", str(pretrained)])
    assert f"test loss {metrics['test/loss']:.4f} of hidden inputs" in capsys.readouterr().out
    assert main(["evaluate", str(pretrained), "--rate", "2"]) == 2
    assert "--rate is 2, expected 1: only classifiers" in capsys.readouterr().err
    run(["report", str(pretrained), "--format", "csv"])
    columns, row = csv.reader(capsys.readouterr().out.splitlines())
    assert dict(zip(columns, row, strict=True))["test loss"] == f"{metrics['test/loss']:.4f}"
    folder = tmp_path / "run"
    run(pretrain(folder, data_dir, "--trainer.max_epochs", "2"))
    config = read_config(RunFolder(folder))
    restore(config, RunFolder(folder).last)
    run(["pretrain", "--run-dir", str(folder), "--resume", "--trainer.max_epochs", "3"])
    assert read_metrics(folder)["epochs"] == 3
    assert (folder / "learning_curve.png").is_file() and (folder / "filters.png").is_file()


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        (("--model.d_model", "4"), ["model.d_model is 8 there, 4 here"]),
        (("--model.n_layers", "2"), ["model.n_layers is 1 there, 2 here"]),
        (("--mixer_options.d_state", "8"), ["mixer_options.d_state is 64 there, 8 here"]),
        (("--mixer", "sgconv"), ["mixer is 's4d' there, 'sgconv' here"]),
        (("--data.n_train", "60"), ["data.n_train is 40 there, 60 here"]),
        (("--data.max_length", "60"), ["data.max_length is 40 there, 60 here"]),
        (("--data.official_dir", "."), ["data.official_dir is None there, 'given' here"]),
    ],
)
def test_what_does_not_fit_is_named(
    extra: tuple[str, ...],
    named: list[str],
    pretrained: Path,
    tmp_path: Path,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(train(tmp_path / "run", data_dir, "--from", str(pretrained), *extra)) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in named) and "Traceback" not in error, error
    assert not (tmp_path / "run").exists()


def test_other_starts_are_refused(
    pretrained: Path, finished: Path, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unfinished, damaged = tmp_path / "unfinished", tmp_path / "damaged.ckpt"
    shutil.copytree(pretrained, unfinished)
    (unfinished / "metrics.json").unlink()
    damaged.write_bytes(b"PK")
    for start, task, code, named in (
        (pretrained, "smnist", 2, "task is 'listops' there, 'smnist' here"),
        (finished, "listops", 2, "task is 'smnist' there, 'listops' here"),
        (tmp_path / "none", "listops", 1, f"there is no checkpoint {tmp_path / 'none'}"),
        (unfinished, "listops", 1, "has not finished"),
        (damaged, "listops", 1, "no readable checkpoint"),
    ):
        assert main(train(tmp_path / "run", data_dir, "--from", str(start), task=task)) == code
        error = capsys.readouterr().err
        assert named in error and "Traceback" not in error, error
    assert main(["train", "--run-dir", str(pretrained), "--resume"]) == 2
    assert "holds a run of `pretrain`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("pretrain", ["TASK"]),
        ("pretrain moving_mnist", ["moving_mnist predicts video"]),
        ("pretrain smnist --pretraining.loss cross_entropy", ["pretraining.loss", "continuous values", "'l1'"]),
        ("pretrain listops --pretraining.loss l1", ["pretraining.loss", "tokens", "'cross_entropy'"]),
        (
            "pretrain listops --pretraining.objective causal",
            ["bidirectional is True", "--pretraining.objective masked"],
        ),
        ("pretrain smnist --pretraining.mask_ratio 0", ["pretraining.mask_ratio is 0"]),
        ("pretrain smnist --pretraining.mask_ratoi 0.2", ["'--pretraining.mask_ratio'"]),
        ("pretrain smnist --from x", ["--from"]),
        ("train smnist --optimizer.schedule linear", ["optimizer.schedule", "cosine"]),
    ],
)
def test_wrong_requests(
    arguments: str,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts) and "Traceback" not in error, error
    assert not any(tmp_path.rglob("*.ckpt"))
