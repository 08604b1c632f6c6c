"""The two file formats, and what is inside of them."""

import json
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from models.public_weights.safetensors import read_safetensors
from models.public_weights.state_dict import read_state_dict, select_resnet
from models.public_weights.torch_zip import read_torch_zip
from tests.data.networks import make_state_dict

rng = np.random.default_rng(0)
STATE = {
    "conv1.weight": rng.standard_normal((4, 3, 7, 7)).astype(np.float32),
    "bn1.weight": rng.standard_normal(4),
    "layer1.0.conv1.weight": rng.standard_normal((4, 4, 3, 3)).astype(np.float16),
    "bn1.num_batches_tracked": np.array(12, np.int64),
}


def assert_equal(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array)


def prefixed(prefix, offset=0.0):
    return {prefix + name: array + array.dtype.type(offset) for name, array in STATE.items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_arrays_come_back_as_they_were_written(suffix, tmp_path):
    write = {".pth": make_state_dict.write_pth, ".safetensors": make_state_dict.write_safetensors}[
        suffix
    ]
    assert_equal(read_state_dict(write(tmp_path / f"weights{suffix}", STATE)), STATE)


def test_bfloat16_becomes_float32(tmp_path):
    values = np.array([1.5, -2.0, 0.0078125, 3e38], np.float32)
    upper = (values.view(np.uint32) >> 16).astype(np.uint16)
    entry = {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}
    path = write_header(tmp_path / "w.safetensors", {"x": entry}, upper.tobytes())
    expected = (upper.astype(np.uint32) << 16).view(np.float32).reshape(2, 2)
    np.testing.assert_array_equal(read_safetensors(path)["x"], expected)
    np.testing.assert_allclose(read_safetensors(path)["x"].ravel(), values, rtol=2**-8)


def test_views_of_one_storage_are_read_by_their_strides(tmp_path):
    storage = np.arange(12, dtype=np.float32)
    body = make_state_dict.tensor_opcodes("FloatStorage", "0", 12, 1, (3, 2), (1, 4))
    path = make_state_dict.write_zip(
        tmp_path / "w.pth", b"\x80\x02" + body + b".", {"0": storage.tobytes()}
    )
    np.testing.assert_array_equal(read_torch_zip(path), [[1, 5], [2, 6], [3, 7]])


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((3, 5), (4, 1), 0),
        ((12,), (1,), 1),
        ((1000, 1000), (0, 0), 0),
        ((2,), (-1,), 5),
        ((2,), (1,), -1),
    ],
)
def test_tensor_outside_of_its_storage_is_refused(shape, strides, offset, tmp_path):
    body = make_state_dict.tensor_opcodes("FloatStorage", "0", 12, offset, shape, strides)
    path = make_state_dict.write_zip(
        tmp_path / "w.pth", b"\x80\x02" + body + b".", {"0": bytes(48)}
    )
    with pytest.raises(
        ValueError, match=r"w\.pth: the state dict cannot be read: tensor with shape"
    ):
        read_torch_zip(path)


class Shell:
    def __reduce__(self):
        import os

        return os.system, ("touch /tmp/terrapair-was-here",)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (pickle.dumps(Shell()), r"holds (posix|nt)\.system, only tensors and dicts are read"),
        (pickle.dumps({"a": np.float64(1.0)}), r"holds numpy"),
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", r"holds builtins\.eval"),
        (b"ctorch\nFloatStorage\n)R.", "the state dict cannot be read"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNtR.", "the state dict cannot be read"),
        (b"\x80\x02}", "the state dict cannot be read"),
        (b"", "the state dict cannot be read"),
    ],
)
def test_pickle_that_holds_more_than_tensors_is_refused_and_runs_nothing(
    payload, message, tmp_path, monkeypatch
):
    path = make_state_dict.write_zip(tmp_path / "w.pth", payload, {})
    monkeypatch.setattr("os.system", lambda command: pytest.fail("the pickle was run"))
    with pytest.raises(ValueError, match=message) as error:
        read_torch_zip(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("offset_in_entry", "value", "message"),
    [(8, 1, "is encrypted"), (10, 99, "compression method is not supported")],
)
def test_zip_that_python_cannot_open_is_refused(offset_in_entry, value, message, tmp_path):
    body = make_state_dict.tensor_opcodes("FloatStorage", "0", 12, 0, (12,), (1,))
    path = make_state_dict.write_zip(
        tmp_path / "w.pth", b"\x80\x02" + body + b".", {"0": bytes(48)}
    )
    raw = bytearray(path.read_bytes())
    # APPNOTE.TXT 4.3.7 and 4.3.12: flags and method stand 2 bytes later in the central
    # directory.
    for signature, shift in ((b"PK\x03\x04", -2), (b"PK\x01\x02", 0)):
        start = -1
        while (start := raw.find(signature, start + 1)) >= 0:
            raw[start + offset_in_entry + shift] = value
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"w\.pth: the state dict cannot be read: .*{message}"):
        read_torch_zip(path)


def test_storage_of_another_size_than_said_is_refused(tmp_path):
    body = make_state_dict.tensor_opcodes("FloatStorage", "0", 12, 0, (12,), (1,))
    path = make_state_dict.write_zip(
        tmp_path / "w.pth", b"\x80\x02" + body + b".", {"0": bytes(44)}
    )
    with pytest.raises(ValueError, match="storage 0 must hold 12 F32, got 44 bytes"):
        read_torch_zip(path)


def refused(path) -> str:
    """Return the line that refuses a file, and check that it took no memory."""
    tracemalloc.start()
    with pytest.raises(ValueError, match=path.name) as error:
        read_state_dict(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 << 20
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_pickle_that_unpacks_into_too_much_is_refused(tmp_path):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(128 << 20))
    assert path.stat().st_size < 1 << 20
    assert "the pickle may have 16777216 bytes, got 134217728" in refused(path)


def test_a_pickle_with_gaps_in_its_memo_is_refused(tmp_path):
    """The unpickler would make a memo of 4 billion entries."""
    path = make_state_dict.write_zip(tmp_path / "w.pth", b"\x80\x02}r\xff\xff\xff\xef.", {})
    assert "the memo may have 9 entries" in refused(path)


def test_tensors_may_not_multiply_a_storage(tmp_path):
    size = 1 << 20
    one = make_state_dict.tensor_opcodes("ByteStorage", "0", size, 0, (size,), (1,))
    items = b"".join(b"X\x01\x00\x00\x00" + bytes([97 + i]) + one + b"s" for i in range(4))
    storages = {"0": bytes(size)}
    path = make_state_dict.write_zip(tmp_path / "a.pth", b"\x80\x02}" + items + b".", storages)
    assert len(read_state_dict(path)) == 4
    many = b"\x80\x02]" + (one + b"a") * 1000 + b"."
    path = make_state_dict.write_zip(tmp_path / "b.pth", many, storages)
    assert "tensors may take 2 times the bytes of their storages" in refused(path)


def test_dicts_that_share_dicts_are_not_walked_without_end(tmp_path):
    """Eight levels of ten names that all lead to the same dict below: 10^8 tensors."""
    tensor = make_state_dict.tensor_opcodes("ByteStorage", "0", 1, 0, (1,), (1,))
    body = tensor + b"q\x00"
    for level in range(1, 8):
        names = [b"X\x01\x00\x00\x00" + bytes([97 + i]) for i in range(10)]
        below = b"h" + bytes([level - 1])
        body += b"0}" + b"".join(name + below + b"s" for name in names) + b"q" + bytes([level])
    path = make_state_dict.write_zip(tmp_path / "w.pth", b"\x80\x02" + body + b".", {"0": b"a"})
    assert "may hold 100000 tensors" in refused(path)


def test_safetensors_may_not_share_bytes(tmp_path):
    entry = {"dtype": "BF16", "shape": [1 << 20], "data_offsets": [0, 2 << 20]}
    header = {str(i): entry for i in range(1000)}
    path = write_header(tmp_path / "w.safetensors", header, bytes(2 << 20))
    assert "tensors of 2097152000 bytes share 2097152 bytes" in refused(path)


def test_old_format_of_pytorch_is_refused(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C))
    with pytest.raises(
        ValueError,
        match=r"old\.pth: must be a zip file of torch\.save: .* from before PyTorch 1\.6 again",
    ):
        read_state_dict(path)


def write_header(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        "text",
    ],
)
def test_safetensors_header_that_lies_is_refused(entry, tmp_path):
    path = write_header(tmp_path / "w.safetensors", {"x": entry}, bytes(8))
    with pytest.raises(
        ValueError, match=r"w\.safetensors: its header does not describe its tensors"
    ):
        read_safetensors(path)


def test_safetensors_cut_short_is_refused(tmp_path):
    path = make_state_dict.write_safetensors(tmp_path / "w.safetensors", STATE)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match="cut short"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("names", "wrapper", "prefix"),
    [
        ([""], None, ""),
        ([""], "state_dict", "state_dict."),
        (["module.encoder_q.", "module.encoder_k."], "state_dict", "state_dict.module.encoder_q."),
        (["backbone."], "teacher", "teacher.backbone."),
        (["student.backbone.", "teacher.backbone."], None, "teacher.backbone."),
    ],
)
def test_resnet_is_found_inside_of_what_projects_publish(names, wrapper, prefix, tmp_path):
    # Each network has other numbers, so that the wrong one would be seen.
    arrays = {
        name: a
        for start in names
        for name, a in prefixed(start, 0.0 if start in prefix else 5.0).items()
    }
    state = read_state_dict(make_state_dict.write_pth(tmp_path / "w.pth", arrays, wrapper))
    found, selected = select_resnet(state, None)
    assert found == prefix
    assert_equal(selected, STATE)


def test_of_two_equal_networks_one_must_be_chosen():
    state = {**prefixed("backbone_1."), **prefixed("backbone_2.", 5.0)}
    with pytest.raises(
        ValueError, match=r"one ResNet .*, got 2: choose by prefix 'backbone_1\.', 'backbone_2\.'"
    ):
        select_resnet(state, None)
    assert_equal(select_resnet(state, "backbone_1.")[1], STATE)
    with pytest.raises(
        ValueError,
        match=r"prefix must be one of 'backbone_1\.', 'backbone_2\.', got 'backbone_3\.'",
    ):
        select_resnet(state, "backbone_3.")


def test_state_dict_without_a_resnet_is_refused():
    with pytest.raises(
        ValueError, match=r"must hold one ResNet .*, got 0: its first names are 'blocks\.0\.attn'"
    ):
        select_resnet({"blocks.0.attn": np.zeros(3)}, None)


def test_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pth: no such file of weights"):
        read_state_dict(tmp_path / "none.pth")
