import numpy as np
import pytest
import torch
from fixtures.artifacts import CLASSES, EPOCHS, IPC, NUM_IMAGES, SIZE, all_images, make_work

from fadrm_hf.builders import Images, SoftLabels
from fadrm_hf.errors import RunFolderError
from fadrm_hf.runtime.tensor_files import load_tensors, save_tensors


@pytest.fixture
def work(tmp_path):
    return make_work(tmp_path / "run.work")


def images_builder(work, **changes):
    settings = {"class_names": list(CLASSES.names), "size": SIZE, "ipc": IPC} | changes
    return Images(cache_dir=str(work / "cache"), shards=str(work / "recovered"), **settings)


def labels_builder(work, cache="cache", **changes):
    settings = {"class_names": list(CLASSES.names), "epochs": EPOCHS} | changes
    return SoftLabels(cache_dir=str(work / cache), shards=str(work / "soft_labels"), **settings)


def test_images_are_rows_by_ipc_index_then_label(work):
    builder = images_builder(work)
    builder.download_and_prepare()
    table = builder.as_dataset("train")
    assert table["label"][:] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert table["ipc_index"][:] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert table["source_index"][:] == [[row + 100] for row in range(NUM_IMAGES)]
    assert table.features["label"].names == list(CLASSES.names)
    pixels = np.stack([np.array(image) for image in table["image"]])
    assert torch.equal(torch.from_numpy(pixels).permute(0, 3, 1, 2), all_images())


def test_soft_labels_are_the_shards_columns(work):
    builder = labels_builder(work)
    builder.download_and_prepare()
    table = builder.as_dataset("train").with_format("numpy")
    shards = [load_tensors(file) for file in sorted((work / "soft_labels").iterdir())]
    for name in table.column_names:
        expected = torch.cat([shard[name] for shard in shards]).numpy()
        np.testing.assert_array_equal(table[name][:], expected)
    assert " ".join(table.features) == "epoch step image crop flip mix_image mix_crop mix_flip mix_box logits"


@pytest.mark.parametrize("make", [images_builder, labels_builder])
def test_streaming_gives_the_same_rows(work, make):
    builder = make(work)
    builder.download_and_prepare()
    prepared = list(builder.as_dataset("train"))
    assert list(builder.as_streaming_dataset("train")) == prepared


def test_two_processes_build_the_same_table(work):
    alone, together = labels_builder(work), labels_builder(work, cache="another")
    alone.download_and_prepare()
    together.download_and_prepare(num_proc=2)
    assert list(alone.as_dataset("train")) == list(together.as_dataset("train"))


def test_a_smaller_ipc_is_the_beginning_of_the_table(work):
    builder = images_builder(work, ipc=1)
    assert sum(len(table) for table in builder.tables()) == len(CLASSES)


def test_shards_made_again_are_read_again(work):
    first = images_builder(work)
    first.download_and_prepare()
    file = next((work / "recovered").iterdir())
    shard = load_tensors(file)
    save_tensors(file, shard | {"images": shard["images"] // 2})
    second = images_builder(work)
    second.download_and_prepare()
    assert first.cache_dir != second.cache_dir
    assert "1.0.0" in second.cache_dir


def test_a_missing_image_shard_is_named_by_its_rows(work):
    (work / "recovered" / "ipc00001-00000-00001.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"missing rows: \[4, 5\].*run the same command again"):
        images_builder(work)


def test_a_missing_epoch_is_named(work):
    (work / "soft_labels" / "epoch00001.safetensors").unlink()
    with pytest.raises(RunFolderError, match=r"lacks 1 of 3 epochs, the first is epoch00001"):
        labels_builder(work)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"logits": torch.zeros((8, 5), dtype=torch.float16)},
            r"logits is torch.float16 \(8, 5\), expected float16 \(8, 4\)",
        ),
        ({"crop": torch.zeros((8, 4))}, r"crop is torch.float32"),
        ({"flip": torch.zeros(7, dtype=torch.bool)}, r"flip is torch.bool \(7,\)"),
    ],
)
def test_a_shard_of_another_shape_is_refused(work, changes, message):
    file = work / "soft_labels" / "epoch00001.safetensors"
    save_tensors(file, load_tensors(file) | changes)
    with pytest.raises(RunFolderError, match=message):
        list(labels_builder(work).tables())


def test_a_truncated_shard_is_refused(work):
    file = work / "soft_labels" / "epoch00001.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(RunFolderError, match=r"epoch00001.safetensors cannot be used.*delete it"):
        list(labels_builder(work).tables())
