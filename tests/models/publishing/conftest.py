"""A small folder that looks like a SavedModel, and a second one."""

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
