"""Models on disk: round trips with configuration and weights, corrupt folders, missing extras. No network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from longconv.models import LanguageModel, PairClassifier, SequenceClassifier, SequenceRegressor

pytest.importorskip("safetensors", reason="the extra export is not installed")
hub = pytest.importorskip("huggingface_hub", reason="the extra export is not installed")

BACKBONE: dict[str, Any] = {
    "d_model": 8,
    "n_layers": 2,
    "mixer_options": [{"d_state": 8}, {"d_state": 4}],
    "norm": "batch",
    "prenorm": False,
    "feed_forward": "glu",
    "dropout": 0.1,
}
MODELS: dict[str, tuple[Any, dict[str, Any], Tensor]] = {
    "classifier": (
        SequenceClassifier,
        {"n_classes": 3, "d_input": 2, "pooling": "last", **BACKBONE},
        torch.linspace(-1, 1, 60).reshape(2, 15, 2),
    ),
    "regressor": (SequenceRegressor, {"n_outputs": 2, "n_tokens": 9, **BACKBONE}, torch.arange(18).reshape(2, 9) % 9),
    "pairs": (PairClassifier, {"n_classes": 2, "n_tokens": 9, **BACKBONE}, torch.arange(36).reshape(2, 2, 9) % 9),
    "lm": (LanguageModel, {"n_tokens": 9, **BACKBONE}, torch.arange(18).reshape(2, 9) % 9),
    "tied lm": (
        LanguageModel,
        {"n_tokens": 9, "tie_embeddings": True, **BACKBONE},
        torch.arange(18).reshape(2, 9) % 9,
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model"
    SequenceClassifier(3, d_input=2, **BACKBONE).save_pretrained(path)
    return path


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("case", MODELS)
def test_round_trip(case: str, tmp_path: Path) -> None:
    kind, options, x = MODELS[case]
    torch.manual_seed(0)
    model = kind(**options)
    model(x)  # moves BatchNorm's running statistics, which have to be saved too
    model.eval().save_pretrained(tmp_path)
    assert {"config.json", "model.safetensors"} <= {path.name for path in tmp_path.iterdir()}
    loaded = kind.from_pretrained(tmp_path)
    assert not loaded.training
    assert loaded.config == model.config
    assert torch.equal(loaded(x), model(x))
    assert len(list(loaded.parameters())) == len(list(model.parameters()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("case", MODELS)
def test_dtypes_are_kept(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    kind, options, _ = MODELS[case]
    torch.manual_seed(0)
    model = kind(**options).to(dtype).eval()
    model.save_pretrained(tmp_path)
    want, got = model.state_dict(), kind.from_pretrained(tmp_path).state_dict()
    assert dtype in {tensor.dtype for tensor in got.values()}
    assert all(got[name].dtype == want[name].dtype and torch.equal(got[name], want[name]) for name in want)


def test_a_wrong_type_in_the_configuration_names_the_file(folder: Path) -> None:
    edit(folder, d_model="wide")
    with pytest.raises(ValueError, match=r"config\.json doesn't fit SequenceClassifier: d_model is 'wide'"):
        SequenceClassifier.from_pretrained(folder)
    edit(folder, d_model=8, norm="lyer")
    with pytest.raises(ValueError, match=r"config\.json doesn't fit SequenceClassifier: norm is 'lyer'"):
        SequenceClassifier.from_pretrained(folder)
    with pytest.raises(ValueError, match=r"config\.json, with norm, dropout given here, doesn't fit.*dropout is 7"):
        SequenceClassifier.from_pretrained(folder, norm="batch", dropout=7.0)


@pytest.mark.parametrize("name", ["/no/such/folder", "./models/of/mine", "models/of/mine"])
def test_a_mistyped_folder_is_named(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no folder {name}"):
        SequenceClassifier.from_pretrained(name)


def test_models_are_the_hubs_own_kind() -> None:
    assert issubclass(SequenceClassifier, hub.PyTorchModelHubMixin)


def test_configuration_holds_defaults_too(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == "SequenceClassifier"
    assert config["drop_path"] == 0.0
    assert config["mixer"] == "s4d"


def test_arguments_override_the_saved_ones(folder: Path) -> None:
    model = SequenceClassifier.from_pretrained(folder, dropout=0.3)
    assert {block.mixer_residual.dropout.p for block in model.trunk.backbone.blocks()} == {0.3}
    with pytest.raises(TypeError, match="'droput'; did you mean 'dropout'"):
        SequenceClassifier.from_pretrained(folder, droput=0.3)


def test_unknown_key_is_named_with_the_nearest(folder: Path) -> None:
    edit(folder, drop_pth=0.1)
    with pytest.raises(ValueError, match=r"config\.json has the key 'drop_pth'.*did you mean 'drop_path'"):
        SequenceClassifier.from_pretrained(folder)


def test_another_models_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match="is of a SequenceClassifier, expected a LanguageModel"):
        LanguageModel.from_pretrained(folder)


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_corrupt_configuration(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is corrupt"):
        SequenceClassifier.from_pretrained(folder)


@pytest.mark.parametrize("keep", [0, 5, 200])
def test_corrupt_weights(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors is corrupt or doesn't fit SequenceClassifier"):
        SequenceClassifier.from_pretrained(folder)


@pytest.mark.parametrize("changes", [{"n_layers": 1, "mixer_options": None}, {"n_classes": 4}])
def test_weights_of_another_shape(folder: Path, changes: dict[str, Any]) -> None:
    edit(folder, **changes)
    with pytest.raises(ValueError, match=r"model\.safetensors is corrupt or doesn't fit"):
        SequenceClassifier.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"has no {name}"):
        SequenceClassifier.from_pretrained(folder)


def test_options_that_json_cannot_hold(tmp_path: Path) -> None:
    model = SequenceClassifier(3, d_input=2, d_model=8, n_layers=1)
    model.config["mixer_options"] = {"d_state": torch.ones(1)}
    with pytest.raises(TypeError, match="configuration of SequenceClassifier can't be written as JSON"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize("missing", ["huggingface_hub", "safetensors"])
def test_missing_extra_is_named_at_use_and_not_at_import(missing: str, tmp_path: Path) -> None:
    script = f"""
import sys
sys.modules[{missing!r}] = None
from longconv.models import SequenceClassifier
model = SequenceClassifier(3, d_input=2, d_model=4, n_layers=1)
for use in (lambda: model.save_pretrained({str(tmp_path)!r}), lambda: SequenceClassifier.from_pretrained("x")):
    try:
        use()
    except ImportError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    want = f"needs {missing}: pip install longconv[export]"
    assert run.stdout.count(want) == 2, run.stdout
