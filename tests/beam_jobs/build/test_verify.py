"""Verify: every way a shard can differ from the manifest is one line with the file."""

import pytest

from beam_jobs.__main__ import run
from beam_jobs.build.verify import verify
from beam_jobs.contracts import layout
from beam_jobs.errors import DataError
from tests.data.shards import make_shards


@pytest.fixture
def version(tmp_path):
    return make_shards.make_version(tmp_path, num_patches=6, size_px=16)


def first_shard(version):
    return layout.shard_paths(version, "train")[0]


def problem(version, with_hashes=True) -> str:
    with pytest.raises(DataError) as caught:
        verify(version, with_hashes)
    assert "\n" not in str(caught.value)
    assert caught.value.reason == "bad_shard"
    return str(caught.value)


def test_a_whole_version_passes_and_every_shard_is_looked_at(version):
    seen = []
    found = verify(version, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert sum(found.num_examples.values()) == 10


@pytest.mark.parametrize("with_hashes", [True, False])
def test_a_shard_cut_short_is_found_by_its_size(version, with_hashes):
    shard = first_shard(version)
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-7])
    expected = f"{shard}: the shard is cut short: it has {size - 7} bytes, the manifest says {size}"
    assert expected in problem(version, with_hashes)


def test_a_changed_byte_is_found_by_the_hash_only(version):
    shard = first_shard(version)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    verify(version, with_hashes=False)
    assert f"{shard}: the shard has another SHA-256 than the manifest says" in problem(version)


def test_missing_and_foreign_shards_are_found_and_counted(version):
    shard = first_shard(version)
    foreign = shard.with_name("part-00007-of-00008.tfrecord.gz")
    shard.rename(foreign)
    found = problem(version)
    assert f"{shard}: the shard is missing (2 shards are wrong)" in found
    shard.write_bytes(foreign.read_bytes())
    assert f"{foreign}: the manifest does not name it" in problem(version)


def test_the_command_says_what_it_compared_and_fails_in_one_line(version, capsys):
    assert run(["verify", str(version), "--sizes-only"]) == 0
    assert capsys.readouterr().out == f"{version}: 4 shards are as the manifest says (sizes)\n"
    assert run(["verify", str(version)]) == 0
    assert "(sizes and SHA-256)" in capsys.readouterr().out
    first_shard(version).write_bytes(b"")
    assert run(["verify", str(version)]) == 3
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {first_shard(version)}: the shard is cut short")
    assert run(["verify", str(version.parent)]) == 3
    assert "no manifest, so this is no finished version" in capsys.readouterr().err
