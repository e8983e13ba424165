"""Models on disk and on the Hugging Face hub: ``config.json`` beside ``model.safetensors``.

Needs the extra ``export`` (huggingface_hub and safetensors) when a model is saved or loaded, not at import.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from longconv import __version__
from longconv._checks import check_options, nearest
from longconv.models.backbone import BackboneOptions

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def _require(module: str) -> Any:
    """The module, or an ImportError that names the extra which brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"saving and loading pretrained models needs {module.split('.')[0]}: pip install longconv[export]"
        ) from error


if TYPE_CHECKING:
    from huggingface_hub import PyTorchModelHubMixin
else:
    try:
        from huggingface_hub import PyTorchModelHubMixin
    except ImportError:

        class PyTorchModelHubMixin:
            """Stands in where huggingface_hub is absent: says so when it is used."""

            def __init_subclass__(cls, **_: Any) -> None:
                super().__init_subclass__()

            def save_pretrained(self, *_: Any, **__: Any) -> None:
                """Raise the ImportError that names the extra."""
                _require("huggingface_hub")

            push_to_hub = save_pretrained


class HubModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="longconv",
    license="apache-2.0",
    tags=["state-space-model", "long-convolution"],
):
    """A model that can be saved to a folder or to the hub, and built again from there.

    ``save_pretrained(folder)`` and ``push_to_hub(repository)`` are those of huggingface_hub's ``PyTorchModelHubMixin``;
    ``from_pretrained`` differs from the mixin's in that it refuses what doesn't fit: unknown configuration keys,
    another model's folder, missing or surplus weights. A subclass sets ``config``.

    Attributes:
        config: the arguments that build the model, in JSON's types.
    """

    config: dict[str, Any]

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write configuration and weights; called by ``save_pretrained`` and ``push_to_hub``."""
        safetensors = _require("safetensors.torch")
        config = {"model": type(self).__name__, "longconv": __version__, **self.config}
        try:
            text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
        except TypeError as error:
            raise TypeError(f"the configuration of {type(self).__name__} can't be written as JSON: {error}") from error
        safetensors.save_model(self, str(save_directory / WEIGHTS_FILE))
        (save_directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        map_location: str | torch.device = "cpu",
        **overrides: Any,
    ) -> Self:
        """Build a model from a folder or from a repository of the hub; in evaluation mode and the saved dtypes.

        Args:
            pretrained_model_name_or_path: a folder that ``save_pretrained`` wrote, or ``"owner/name"`` on the hub.
            force_download: whether to download again what is in the cache.
            token: the hub's access token.
            cache_dir: the hub's cache folder.
            local_files_only: whether to use the cache alone.
            revision: a branch, tag or commit on the hub.
            map_location: the device of the weights.
            overrides: arguments of the model in place of the saved ones, such as ``dropout``.

        Raises:
            ImportError: huggingface_hub or safetensors is missing (names the extra that brings them).
            FileNotFoundError: the folder is missing or lacks a file.
            ValueError: a corrupt file, an unknown configuration key, another model's folder, or weights that don't fit.
        """
        safetensors = _require("safetensors.torch")
        download = {
            "revision": revision,
            "cache_dir": cache_dir,
            "force_download": force_download,
            "token": token,
            "local_files_only": local_files_only,
        }
        check_options(cls.__name__, overrides, _arguments(cls))
        path = _locate(pretrained_model_name_or_path, CONFIG_FILE, download)
        config = _read_config(cls, path)
        try:
            model = cls(**{**config, **overrides})
        except (TypeError, ValueError) as error:
            among = f", with {', '.join(overrides)} given here," if overrides else ""
            raise ValueError(f"{path}{among} doesn't fit {cls.__name__}: {error}") from error
        weights = _locate(pretrained_model_name_or_path, WEIGHTS_FILE, download)
        try:
            _take_dtypes(model, safetensors.load_file(str(weights)))
            safetensors.load_model(model, str(weights), strict=True, device=str(map_location))
        except (RuntimeError, _require("safetensors").SafetensorError) as error:
            raise ValueError(f"{weights} is corrupt or doesn't fit {cls.__name__}: {error}") from error
        return model.to(map_location).eval()


def _locate(source: str | Path, name: str, download: Mapping[str, Any]) -> Path:
    """A file of a model: in the folder ``source``, or else downloaded from the repository of that name."""
    hub, folder = _require("huggingface_hub"), Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{source} has no {name}: expected a folder that save_pretrained wrote")
        return folder / name
    try:
        return Path(hub.hf_hub_download(repo_id=str(source), filename=name, **download))
    except _require("huggingface_hub.errors").HFValidationError as error:
        raise FileNotFoundError(
            f"there is no folder {source}, nor can it be a repository of the hub, whose name would be owner/name"
        ) from error
    except OSError as error:
        error.add_note(f"There is no folder {source} on this machine, so it was looked for on the hub.")
        raise


def _take_dtypes(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Convert every parameter and buffer to the dtype that it was saved in."""
    tensors = itertools.chain(model.named_parameters(remove_duplicate=False), model.named_buffers())
    for name, tensor in tensors:
        if name in weights:
            tensor.data = tensor.data.to(weights[name].dtype)


def _plain(value: object) -> Any:
    """JSON's counterpart of a mapping that isn't a dict."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def _arguments(model: type[HubModel]) -> tuple[str, ...]:
    """The names of all arguments of a model, those of its backbone included."""
    own = inspect.signature(model.__init__).parameters.values()
    named = [parameter.name for parameter in own if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    return (*(name for name in named if name != "self"), *BackboneOptions.__annotations__)


def _read_config(model: type[HubModel], path: Path) -> dict[str, Any]:
    """The arguments in a configuration file; a ValueError that names the file where they don't fit ``model``."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is corrupt: not JSON ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} is corrupt: expected a JSON object, got {type(config).__name__}")
    saved = config.pop("model", None)
    if saved != model.__name__:
        raise ValueError(f"{path} is of a {saved}, expected a {model.__name__}")
    config.pop("longconv", None)
    known = _arguments(model)
    for key in config:
        if key not in known:
            raise ValueError(f"{path} has the key {key!r}, which {model.__name__} doesn't know{nearest(key, known)}")
    return config
