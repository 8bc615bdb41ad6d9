"""Files are complete or absent."""

import hashlib

import pytest
import torch

from fadrm_hf.runtime.files import remove_temporaries, sha256, write_bytes, write_json, write_with
from fadrm_hf.runtime.tensor_files import is_complete, load_tensors, save_tensors


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "deep/er/file"
    write_bytes(path, b"before")

    def fail(temporary):
        temporary.write_bytes(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_with(path, fail)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_file_appears_only_when_it_is_written(tmp_path):
    def write(temporary):
        temporary.write_bytes(b"all of it")
        assert not (tmp_path / "file").exists()

    write_with(tmp_path / "file", write)
    assert (tmp_path / "file").read_bytes() == b"all of it"


def test_temporaries_of_the_killed_are_removed_and_nothing_else(tmp_path):
    for name in ("data/.a.parquet.123.tmp", "data/a.parquet", ".gitattributes", "notes.tmp"):
        write_bytes(tmp_path / name, b"x")
    remove_temporaries(tmp_path)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [".gitattributes", "data/a.parquet", "notes.tmp"]


def test_tensors_come_back_as_they_were(tmp_path):
    tensors = {"strided": torch.arange(12).view(3, 4).T, "half": torch.rand(3).half(), "flag": torch.tensor([True])}
    save_tensors(tmp_path / "shard.safetensors", tensors)
    loaded = load_tensors(tmp_path / "shard.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor) and loaded[name].dtype == tensor.dtype


@pytest.mark.parametrize("length", [0, 7, 60, -1])
def test_a_shard_cut_anywhere_is_not_complete(tmp_path, length):
    path = tmp_path / "shard.safetensors"
    assert not is_complete(path)
    save_tensors(path, {"x": torch.arange(100)})
    assert is_complete(path)
    content = path.read_bytes()
    path.write_bytes(content[:length])
    assert not is_complete(path)


def test_json_is_readable_text_with_a_final_newline(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Brötchen", "values": [1, None]})
    assert (tmp_path / "a.json").read_text() == '{\n  "name": "Brötchen",\n  "values": [\n    1,\n    null\n  ]\n}\n'


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of_files_of_any_length(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert sha256(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()
