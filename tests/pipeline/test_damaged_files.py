"""Verbs whose input files are damaged: one line that names the file, and exit code 3."""

import os
import shutil

import pytest

from beam_jobs.contracts import manifest
from beam_jobs.terminal import program
from models.neighbours.index import write_index
from tests.data.faults import damage
from tests.data.networks import make_encoder, make_index
from tests.data.shards import make_shards


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two versions, an index and a published encoder."""
    root = tmp_path_factory.mktemp("whole")
    version = make_shards.make_version(root / "pairs", num_patches=6, size_px=16)
    make_shards.make_version(
        root / "labels", kind="labels", label_schema="water", num_patches=6, size_px=16, north=3.0
    )
    index = make_index.make_index(make_index.make_embeddings(12), pairs=str(version))
    write_index(root / "index", index.info.source, [(index.embeddings, list(index.patches))])
    make_encoder.publish(manifest.read(version), root / "encoder", is_served=False)
    return root


@pytest.fixture
def root(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "data")


PAIRS, LABELS = "pairs/span-1/version-1", "labels/span-1/version-1"
VERBS = {
    "verify": ("verify", PAIRS),
    "card": ("card", PAIRS),
    "audit": ("audit", "--pairs", PAIRS, "--labels", LABELS),
    "embed": ("embed", "--encoder", "encoder", "--pairs", PAIRS, "--output", "new"),
    "search": ("search", "--index", "index", "--random", "1", "--output", "a.png"),
}
READ = [
    ("verify", f"{PAIRS}/manifest.json"),
    ("card", f"{PAIRS}/manifest.json"),
    ("audit", f"{LABELS}/manifest.json"),
    ("embed", "encoder/assets.extra/model_card.json"),
    ("embed", "encoder/assets.extra/s1_encoder.keras"),
    ("embed", "encoder/assets.extra/s2_head.keras"),
    ("search", "index/index.json"),
    ("search", "index/patches.csv"),
    ("search", "index/s2.npy"),
]
HARMS = {
    "empty": lambda path: damage.cut(path, 0),
    "half": damage.cut,
    "other JSON": lambda path: path.write_text('{"a": [1, 2]}'),
    "a list": lambda path: path.write_text("[[1]]"),
    "binary": lambda path: path.write_bytes(b"\xff\xfe" + os.urandom(200)),
    "a folder": damage.replace_by_folder,
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
@pytest.mark.parametrize(("verb", "name"), READ, ids=[f"{verb} {name}" for verb, name in READ])
def test_a_damaged_file_is_one_line_with_its_name(root, verb, name, harm, monkeypatch, capsys):
    monkeypatch.chdir(root)
    harm(root / name)
    assert program.run([*VERBS[verb], "--quiet"]) == 3
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    (line,) = lines
    # If a whole file is missing, the line may name its folder.
    assert name in line or os.path.dirname(name).removesuffix("/assets.extra") in line
    for bare in ("unexpected", "Traceback", "[Errno", "--debug"):
        assert bare not in line


@pytest.mark.parametrize("harm", [damage.flip, damage.cut])
@pytest.mark.parametrize("verb", ["verify", "card", "audit", "embed"])
def test_a_damaged_shard_is_named_by_every_verb(root, verb, harm, monkeypatch, capsys):
    monkeypatch.chdir(root)
    split = "eval" if verb == "embed" else "train"
    path = harm(min((root / PAIRS / split).iterdir()))
    assert program.run([*VERBS[verb], "--quiet"]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert os.path.relpath(path, root) in line


def test_debug_shows_the_traceback_before_the_line(root, monkeypatch, capsys):
    monkeypatch.chdir(root)
    damage.cut(root / PAIRS / "manifest.json")
    assert program.run([*VERBS["verify"], "--quiet"]) == 3
    assert "Traceback" not in capsys.readouterr().err
    assert program.run([*VERBS["verify"], "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err
