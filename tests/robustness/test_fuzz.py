"""Whatever is read from outside, it works or is refused by name: no other exception, no hang, no memory for claims.

The suite tries few examples, always the same; `make soak` sets `FUZZ_EXAMPLES` and tries new ones each time.
"""

import copy
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from fixtures import artifacts
from fixtures.runs import ROOT
from fixtures.tables import LABELS, groups_of, rehash, write_groups
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fadrm_hf.config.file import read_settings
from fadrm_hf.errors import FadrmError
from fadrm_hf.hub import open_artifact
from fadrm_hf.labels.codecs import find_codec
from fadrm_hf.pipeline.arguments import parse_run
from fadrm_hf.pipeline.legacy.label_files import read_batch
from fadrm_hf.pipeline.settings import run_from_recipe
from fadrm_hf.publishing.received_results import read_evaluation
from fadrm_hf.runtime.run_folder import WorkFolder
from fadrm_hf.training.loader import load_distilled

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
IMAGES = "data/train-00000-of-00001.parquet"
RESULT = json.loads((ROOT / "results/fadrm-digits-ipc10/distilled-soft-fadrm-timm_resnet10_narrow.json").read_text())
RECIPE: dict[str, Any] = yaml.safe_load((ROOT / "recipes/configs/digits/fadrm_ipc10.yaml").read_text())


def tried(count: int) -> settings:
    """So many examples in the suite; as many new ones as are asked for elsewhere."""
    return settings(
        max_examples=int(EXAMPLES or count),
        derandomize=EXAMPLES is None,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = {"a": [value]}
    return value


EXTREMES = (
    10**400,
    -(10**19),
    2**31,
    2**63,
    1e308,
    -0.0,
    "../x",
    "\0",
    "é\u202e\U0001f600",
    "x" * 10_000,
    nested(200),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(EXTREMES)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


DEEP = b'{"a": [' * 900 + b"0" + b"]}" * 900


def places_in(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key and index of a document, at any depth."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [place for key, value in inner for place in [(*path, key), *places_in(value, (*path, key))]]


@st.composite
def changed(draw: st.DrawFn, document: Mapping[str, Any]) -> dict[str, Any]:
    """A document in which some values are replaced, missing, or under another name."""
    found = copy.deepcopy(dict(document))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places_in(found) or [("a",)]))
        inside: Any = found
        for key in way:
            inside = inside[key]
        action = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename")))
        if action == "replace" or not isinstance(inside, dict):
            inside[last] = copy.deepcopy(draw(VALUES))
        else:
            value = inside.pop(last, None)
            if action == "rename":
                inside[draw(st.text(max_size=8))] = value
    return found


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which some are others, or missing, or too many."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(found) - 1)))
        end = draw(st.sampled_from((start, start + 1, start + 4, len(found))))
        found[start:end] = draw(st.binary(max_size=8))
    return bytes(found)


def is_handled(read: Callable[[], object]) -> None:
    """It works or raises a documented error; pytest-timeout ends what does neither."""
    try:
        read()
    except FadrmError as error:
        assert str(error)


# Settings


@tried(8)
@given(document=changed(RECIPE))
def test_any_value_anywhere_in_a_run(tmp_path, document):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(document, allow_unicode=True), "utf-8")
    is_handled(lambda: parse_run(["--config", str(tmp_path / "run.yaml")]))


@tried(8)
@given(option=st.sampled_from([".".join(map(str, place)) for place in places_in(RECIPE)]), value=VALUES | st.text())
def test_any_value_on_the_command_line(option, value):
    is_handled(lambda: parse_run([f"--{option}={value if isinstance(value, str) else json.dumps(value)}"]))


@tried(100)
@given(content=st.text() | st.binary() | damaged(yaml.safe_dump(RECIPE).encode()))
def test_any_file_of_settings(tmp_path, content):
    (tmp_path / "run.yaml").write_bytes(content.encode("utf-8", "ignore") if isinstance(content, str) else content)
    is_handled(lambda: read_settings(tmp_path / "run.yaml"))


@tried(200)
@given(recipe=changed(RECIPE) | st.dictionaries(st.text(max_size=8), VALUES))
def test_any_recipe(recipe):
    is_handled(lambda: run_from_recipe(recipe, "run"))


@tried(100)
@given(held=changed(RECIPE) | VALUES | st.binary() | st.just(DEEP))
def test_any_record_of_an_unfinished_run(tmp_path, held):
    work = WorkFolder(tmp_path / "run")
    work.path.mkdir(exist_ok=True)
    (work.path / "recipe.json").write_bytes(held if isinstance(held, bytes) else json.dumps(held).encode())
    is_handled(lambda: work.check(RECIPE, vars(run_from_recipe(RECIPE, "run"))))


# Artifacts


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return artifacts.make_artifact(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="module")
def artifact(made):
    return artifacts.copy_artifact(made, made.with_name("changed"))


MANIFEST: dict[str, Any] = {}


@pytest.fixture(scope="module", autouse=True)
def manifest(made):
    """The manifest of the artifact, which strategies change."""
    MANIFEST.update(json.loads((made / "fadrm.json").read_text()))


def read_labels(folder: Path) -> None:
    list(load_distilled(folder).batches(range(artifacts.EPOCHS)))


@tried(60)
@given(data=st.data())
def test_any_manifest(made, artifact, data):
    document = data.draw(changed(MANIFEST))
    (artifact / "fadrm.json").write_bytes(json.dumps(document).encode("utf-8", "surrogatepass"))
    is_handled(lambda: read_labels(artifact))


@tried(60)
@given(data=st.data())
def test_any_bytes_for_a_manifest(made, artifact, data):
    (artifact / "fadrm.json").write_bytes(data.draw(st.binary() | damaged((made / "fadrm.json").read_bytes())))
    is_handled(lambda: open_artifact(artifact))


@pytest.mark.parametrize("name", [IMAGES, LABELS])
@tried(12)
@given(data=st.data())
def test_any_bytes_for_a_table(made, artifact, name, data):
    for file in (IMAGES, LABELS, "fadrm.json"):
        (artifact / file).write_bytes((made / file).read_bytes())
    (artifact / name).write_bytes(data.draw(damaged((made / name).read_bytes())))
    is_handled(lambda: read_labels(artifact))


TYPES = st.sampled_from(
    [pa.int8(), pa.uint8(), pa.int64(), pa.float16(), pa.float64(), pa.bool_(), pa.string(), pa.binary(), pa.null()]
)
KINDS = (
    TYPES
    | st.builds(lambda kind, width: pa.list_(kind, width), TYPES, st.integers(1, 70))
    | st.builds(pa.list_, TYPES)
)


@tried(25)
@given(data=st.data())
def test_any_column_in_the_place_of_another(made, artifact, data):
    groups = groups_of(made / LABELS)
    name, kind = data.draw(st.sampled_from(groups[0].column_names)), data.draw(KINDS)
    column = pa.nulls(artifacts.NUM_IMAGES, kind)
    index = groups[0].schema.get_field_index(name)
    others = [group.set_column(index, pa.field(name, kind), column).replace_schema_metadata(None) for group in groups]
    write_groups(artifact / LABELS, others)
    (artifact / IMAGES).write_bytes((made / IMAGES).read_bytes())
    (artifact / "fadrm.json").write_bytes((made / "fadrm.json").read_bytes())
    rehash(artifact)
    is_handled(lambda: read_labels(artifact))


@pytest.mark.parametrize("name", ["float16", "int8", "int4", "top3"])
@tried(40)
@given(num_classes=st.integers(4, 300), data=st.data())
def test_any_codes_are_labels_or_are_said_to_be_none(name, num_classes, data):
    """Every value of the columns' types: what is not flagged decodes to numbers."""
    codec, rng = find_codec(name), np.random.default_rng(data.draw(st.integers(0, 2**32)))
    columns = {}
    for column, feature in codec.features(num_classes).items():
        dtype = np.dtype(getattr(feature, "feature", feature).dtype)
        shape = (5, feature.length) if hasattr(feature, "length") else (5,)
        columns[column] = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8).view(dtype).reshape(shape)
    usable = ~codec.unusable(columns, num_classes)
    with np.errstate(all="raise", under="ignore"):
        logits = codec.decode({column: values[usable] for column, values in columns.items()}, num_classes)
    assert logits.shape == (usable.sum(), num_classes) and np.isfinite(logits).all()


# Older releases, evaluations


def label_batch(num: int = 4, num_classes: int = 4) -> list[Any]:
    """A label file's entries, as released."""
    rng = torch.Generator().manual_seed(0)
    crop = torch.tensor([[0.0, 0.0, 1.0, 0.5]]).repeat(num, 1)
    flip, partner = torch.zeros(num, dtype=torch.bool), torch.randperm(num, generator=rng)
    return [crop, flip, partner, 0.5, [0, 0, 4, 4], torch.randn((num, num_classes), generator=rng).half()]


TENSORS = st.builds(
    lambda shape, kind: torch.zeros(shape, dtype=kind),
    st.lists(st.integers(0, 5), max_size=3),
    st.sampled_from([torch.float32, torch.float16, torch.int64, torch.bool, torch.complex64, torch.uint8]),
)
HUGE = st.builds(lambda num: torch.zeros(1).expand(num, 4), st.sampled_from([2**20, 2**40]))


@tried(60)
@given(data=st.data())
def test_any_entries_of_a_label_file(tmp_path, data):
    entries = label_batch() + data.draw(st.sampled_from([[], [None], [None, None]]))
    for _ in range(data.draw(st.integers(1, 2))):
        entries[data.draw(st.integers(0, len(entries) - 1))] = data.draw(VALUES | TENSORS | HUGE)
    torch.save(entries, tmp_path / "batch_0.tar")
    is_handled(lambda: read_batch(tmp_path / "batch_0.tar", 8, 4))


@pytest.mark.parametrize("zipped", [True, False])
@tried(60)
@given(data=st.data())
def test_any_bytes_for_a_label_file(tmp_path, zipped, data):
    torch.save(label_batch(), tmp_path / "whole.tar", _use_new_zipfile_serialization=zipped)
    (tmp_path / "batch_0.tar").write_bytes(data.draw(damaged((tmp_path / "whole.tar").read_bytes())))
    is_handled(lambda: read_batch(tmp_path / "batch_0.tar", 8, 4))


@tried(100)
@given(result=changed(RESULT) | VALUES)
def test_any_evaluation(tmp_path, result):
    (tmp_path / "result.json").write_bytes(json.dumps(result).encode("utf-8", "surrogatepass"))
    is_handled(lambda: read_evaluation(tmp_path / "result.json"))
