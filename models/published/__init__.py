"""Published models: how they are written, read, described and checked.

`load` is what notebooks import:

    from models.published import load

- `export`: start here. Writes SavedModels and loads their Keras models.
- `signatures`, `warmup`: functions behind the signatures; TF Serving's warm-up calls.
- `card`: the model card, written last; `encoder_card`: that of an encoder, read.
- `warm_start`: published weights as the start of another training.
- `one_file`: a SavedModel as a single file, for object stores.
- `tolerances`: how far answers may differ.
- `parity`: compares the signatures with the Keras models.
- `golden`: answers of the trained model; `canary` compares a served one with them, and
  `second_reader` asks OpenVINO.
- `loading`: a SavedModel as an object with `predict` and `embed`; `arrays` and `scenes`
  are its inputs, `inference` what runs between, `results` its outputs.

The trainers, `models.public_weights`, the components and the serving checks import it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.published.loading import PublishedModel, load

__all__ = ["PublishedModel", "load"]


def __getattr__(name: str) -> Any:
    """Import the names of notebooks when they are asked for.

    Whoever reads only a card must not wait for TensorFlow.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.published import loading

    return getattr(loading, name)
