"""Small models: folders that look like a SavedModel, and one that is a SavedModel."""

import pytest


@pytest.fixture
def make_model(tmp_path):
    """Return a function that writes a model's folder whose content depends on a word."""

    def make(word: str = "first"):
        folder = tmp_path / f"model-{word}"
        files = {
            "saved_model.pb": f"graph of {word}".encode(),
            "variables/variables.data-00000-of-00001": word.encode() * 1000,
            "assets.extra/model_card.json": b'{"inputs": {}}',
        }
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return str(folder)

    return make


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """Return the folder of a SavedModel that multiplies by two."""
    import tensorflow as tf

    model = tf.Module()
    model.factor = tf.Variable(2.0)
    model.times = tf.function(
        lambda number: {"product": model.factor * number},
        input_signature=[tf.TensorSpec([], tf.float32, "number")],
    )
    folder = tmp_path_factory.mktemp("saved-model")
    tf.saved_model.save(model, str(folder), {"serving_default": model.times})
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra/model_card.json").write_text('{"inputs": {}}')
    return str(folder)
