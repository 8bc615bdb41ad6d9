"""Sources by Hub id, from the test Hub: what is read is pinned, and what cannot be read is named."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Image
from PIL import Image as PillowImage

from fadrm_hf.config import SourceConfig
from fadrm_hf.config.datasets import resolve_source
from fadrm_hf.data.sources import Source, load_source
from fadrm_hf.errors import SourceError

NAMES = ["ash", "birch"]
TREES = SourceConfig(name="alice/trees", size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def table(num: int, first: int) -> bytes:
    """`num` pictures of one grey level each, `first` upwards, of two classes in turn."""
    features = Features({"image": Image(), "label": ClassLabel(names=NAMES)})
    pictures = []
    for level in range(first, first + num):
        buffer = io.BytesIO()
        PillowImage.fromarray(np.full((8, 8, 3), level, dtype=np.uint8)).save(buffer, format="PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": None})
    columns = [pa.array(pictures, features["image"].pa_type), pa.array([row % 2 for row in range(num)], pa.int64())]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=features.arrow_schema), sink)
    return sink.getvalue()


def publish(hub, num: int, first: int, **how) -> str:
    """A source with `num` training images; returns the commit."""
    files = {"data/train-0.parquet": table(num, first), "data/test-0.parquet": table(4, 200)}
    return hub.put("alice/trees", files, **how)


def load(**changes) -> Source:
    return load_source(resolve_source(SourceConfig(**(vars(TREES) | changes))))


def test_a_source_is_read_by_its_id_and_its_commit_is_known(hub):
    commit = publish(hub, 6, 10)
    source = load()
    assert source.revision == commit
    assert source.class_map.names == tuple(NAMES)
    assert source.pixels("train", range(6))[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 14, 15]
    assert source.labels("test").tolist() == [0, 1, 0, 1]


def test_a_revision_is_read_as_it_was(hub):
    old = publish(hub, 6, 10)
    hub.tag("alice/trees", "v1", old)
    new = publish(hub, 8, 50)
    assert load().revision == new
    for name in ("v1", old):
        source = load(revision=name)
        assert source.revision == old
        assert len(source.train) == 6
    assert load(revision="v1").fingerprint != load().fingerprint


def named_in_card(*names: str) -> bytes:
    """A card that states the classes, written as these words are."""
    classes = "".join(f"          '{number}': {name}\n" for number, name in enumerate(names))
    features = "  - name: image\n    dtype: image\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
    return f"---\ndataset_info:\n  features:\n{features}{classes}---\n".encode()


@pytest.mark.parametrize("names", [("no", "yes"), ("1.0", "007"), ("off", "on"), ("ash", "null")])
def test_classes_are_called_as_the_card_writes_them(hub, names):
    files = {"data/train-0.parquet": table(6, 10), "data/test-0.parquet": table(4, 200)}
    hub.put("alice/trees", files | {"README.md": named_in_card(*names)})
    source = load()
    assert source.class_map.names == names
    assert source.labels("train").tolist() == [0, 1, 0, 1, 0, 1]


def test_a_card_that_can_be_read_in_two_ways_is_named(hub):
    files = {"data/train-0.parquet": table(6, 10), "README.md": named_in_card("no", "no")}
    hub.put("alice/trees", files)
    with pytest.raises(SourceError, match=r"README.md of .*alice/trees.*'label'.*dataset_info.*quotes"):
        load()


@pytest.mark.parametrize("changes", [{"name": "alice/shrubs"}, {"revision": "v9"}])
def test_what_is_not_there_is_named(hub, changes):
    publish(hub, 6, 10)
    with pytest.raises(SourceError) as raised:
        load(**changes)
    assert [value for value in changes.values() if value not in str(raised.value)] == []
    assert "--source" in str(raised.value)


def test_a_private_source_needs_its_owner(hub, monkeypatch, tmp_path):
    publish(hub, 6, 10, private=True)
    with pytest.raises(SourceError, match="alice/trees"):
        load()
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    assert len(load().train) == 6
