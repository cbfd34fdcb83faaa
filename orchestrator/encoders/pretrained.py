"""transformers models from a directory or the hub: safetensors only, no code of the repository is run.

Loaded in the precision asked for, whatever the file was saved in; hidden states are asked for by index.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator.encoders.weights import find_model
from orchestrator.errors import ConfigError, ModelUnavailable

if TYPE_CHECKING:
    import torch
    from torch import nn

_UNREAD = ("pooler.", "masked_spec_embed")  # weights that no hidden state hangs on


def load_model(model: str, revision: str | None, dtype: torch.dtype) -> Any:
    """The bare transformer in eval mode on the CPU; of an encoder-decoder model, its encoder. Raises ModelUnavailable."""
    from transformers import AutoModel

    directory = find_model(model, revision)
    try:
        with _quiet():
            found, info = AutoModel.from_pretrained(
                directory,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(model, str(directory), error) from error
    part = "encoder." if found.config.is_encoder_decoder else ""
    missing = sorted(key for key in info["missing_keys"] if key.startswith(part) and not key.startswith(_UNREAD))
    if missing:
        raise ModelUnavailable(
            f"model {model!r}: the weights in {directory} lack {len(missing)} tensors ({missing[0]}, ...), which transformers "
            "would make up at random; give the directory that save_pretrained wrote"
        )
    found.config.use_cache = False  # keys and values are for writing on; we only read
    encoder: nn.Module = found.get_encoder() if found.config.is_encoder_decoder else found
    return encoder.eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers reports heads we do not read and draws a bar for a local file; we look at what is missing ourselves."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def load_tokenizer(model: str, revision: str | None) -> Any:
    """The model's fast tokenizer. Raises ModelUnavailable."""
    from transformers import AutoTokenizer

    directory = find_model(model, revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _unavailable(model, str(directory), error) from error
    if not tokenizer.is_fast:
        raise ModelUnavailable(
            f"model {model!r}: {directory} has no fast tokenizer, so content tokens cannot be told from the template; "
            "save it as tokenizer.json with save_pretrained"
        )
    return tokenizer


def load_extractor(model: str, revision: str | None) -> Any:
    """The model's own waveform preprocessing. Raises ModelUnavailable."""
    from transformers import AutoFeatureExtractor

    directory = find_model(model, revision)
    try:
        return AutoFeatureExtractor.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(model, str(directory), error) from error


def layer_indices(layers: Sequence[int], config: Any, model: str) -> tuple[int, ...]:
    """Indices into the L + 1 hidden states, from 0. Raises ConfigError for a layer the model does not have."""
    states = int(config.num_hidden_layers) + 1
    wrong = [layer for layer in layers if not -states <= layer < states]
    if wrong:
        raise ConfigError(f"layers names {wrong}; {model} has hidden states 0 to {states - 1} (or -1 to {-states} from the end)")
    return tuple(layer % states for layer in layers)


def _unavailable(model: str, directory: str, error: Exception) -> ModelUnavailable:
    why = " ".join(str(error).split())[:200]
    return ModelUnavailable(
        f"model {model!r}: {directory} cannot be loaded ({why}); it needs config.json of an architecture transformers ships "
        "(code inside a repository is not run), its preprocessing files and *.safetensors"
    )
