"""How soft labels are stored: what each codec keeps exactly, how far off the rest is, and what is refused."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value

from fadrm_hf.errors import ArtifactError, ConfigError, TeacherError
from fadrm_hf.labels.codecs import find_codec

pytestmark = pytest.mark.numerical

WITH_LOGITS = ["float16", "int8", "int4", "top1", "top4"]


def some_logits(num_rows=40, num_classes=7, scale=4.0):
    return torch.randn((num_rows, num_classes), generator=torch.Generator().manual_seed(0)) * scale


def encode(name, logits):
    return {column: tensor.numpy() for column, tensor in find_codec(name).encode(logits).items()}


def decode(name, logits):
    return find_codec(name).decode(encode(name, logits), logits.shape[1])


def halves(logits):
    return logits.half().double().numpy()


# What every codec promises


@pytest.mark.parametrize("name", [*WITH_LOGITS, "none"])
@pytest.mark.parametrize("num_classes", [5, 6, 300])
def test_columns_are_of_the_types_that_the_features_say(name, num_classes):
    codec = find_codec(name)
    assert codec.name == name
    columns = codec.encode(some_logits(7, num_classes))
    features = codec.features(num_classes)
    assert list(columns) == list(features)
    for column, feature in features.items():
        is_list = isinstance(feature, List)
        assert tuple(columns[column].shape) == ((7, feature.length) if is_list else (7,))
        assert columns[column].dtype == getattr(torch, (feature.feature if is_list else feature).dtype)


@pytest.mark.parametrize("name", ["float16", "top1", "top4"])
def test_logits_that_were_decoded_are_stored_as_they_were(name):
    decoded = decode(name, some_logits())
    assert decoded.dtype == np.float32 and decoded.shape == (40, 7)
    again = encode(name, torch.from_numpy(decoded))
    for column, values in encode(name, some_logits()).items():
        np.testing.assert_array_equal(again[column], values)


@pytest.mark.parametrize("name", WITH_LOGITS)
@pytest.mark.parametrize("num_classes", [5, 6, 300])
def test_the_snippet_of_a_card_decodes_to_the_same_bits_as_plain_datasets_reads_them(name, num_classes):
    logits, codec = some_logits(16, num_classes), find_codec(name)
    columns = encode(name, logits)
    table = Dataset.from_dict(columns, features=codec.features(num_classes)).with_format("numpy")
    defined = {"np": np}
    exec(codec.decode_snippet, defined)
    for rows in (columns, table[:16]):
        found = defined["decode"](rows, num_classes)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, codec.decode(columns, num_classes))
    assert len(codec.decode_snippet.splitlines()) <= 10


@pytest.mark.parametrize("name", WITH_LOGITS)
def test_own_labels_are_at_no_distance_and_others_are(name):
    logits = some_logits()
    columns, codec = encode(name, logits), find_codec(name)
    rounding = 2.0**-10 * np.abs(logits.numpy()).max(axis=1)
    assert (codec.distance(columns, logits.numpy()) <= rounding).all()
    other = logits.roll(1, dims=1).numpy()
    assert (codec.distance(columns, other) > 10 * rounding).all()
    unknown = logits.clone().numpy()
    unknown[3, 2] = np.nan
    assert np.flatnonzero(np.isnan(codec.distance(columns, unknown))).tolist() == [3]


@pytest.mark.parametrize("name", WITH_LOGITS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 7e4, -7e4])
def test_values_that_float16_cannot_hold_are_refused_with_their_row(name, value):
    logits = some_logits(4)
    logits[2, 1] = value
    with pytest.raises(TeacherError, match=r"logits of row 2 hold .*expected finite values within ±65504"):
        find_codec(name).encode(logits)


@pytest.mark.parametrize(
    ("name", "column"),
    [("float16", "logits"), ("int8", "low"), ("int4", "scale"), ("top4", "values"), ("top4", "rest")],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_hold_no_number_are_unusable(name, column, value):
    columns = encode(name, some_logits())
    assert not find_codec(name).unusable(columns, 7).any()
    columns[column].reshape(40, -1)[5, 0] = value
    assert np.flatnonzero(find_codec(name).unusable(columns, 7)).tolist() == [5]


# float16


def test_float16_rounds_each_logit_once():
    logits = torch.tensor([[1.0, -65504.0, 1 / 3]])
    assert decode("float16", logits).tolist() == [[1.0, -65504.0, float(np.float16(1 / 3))]]
    assert find_codec("float16").features(3) == Features({"logits": List(Value("float16"), length=3)})


# int8 and int4


@pytest.mark.parametrize("name", ["int8", "int4"])
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 4.0, 1e4])
@pytest.mark.parametrize("num_classes", [2, 7, 100])
def test_the_error_is_at_most_half_a_step_of_the_row(name, scale, num_classes):
    logits = some_logits(200, num_classes, scale).clamp(-65504, 65504)
    step = encode(name, logits)["scale"].astype(np.float64)[:, None]
    error = np.abs(decode(name, logits) - halves(logits))
    assert (error <= step / 2 + 2.0**-23 * np.abs(halves(logits))).all()  # the sum is rounded to float32
    reach = halves(logits).max(axis=1) - halves(logits).min(axis=1)
    finest = reach / {"int8": 255, "int4": 15}[name]
    assert (step[:, 0] <= finest * (1 + 2.0**-10) + 2.0**-24).all()


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_rows_of_equal_logits_and_the_widest_of_rows(name):
    logits = torch.tensor([[0.0] * 5, [-3.25] * 5, [65504.0] * 5, [65504.0, -65504.0, 0.0, 1.0, 2.0]])
    decoded = decode(name, logits)
    np.testing.assert_array_equal(decoded[:3], logits[:3].numpy())
    assert decoded[3, 1] == -65504.0
    assert decoded[3, 0] == pytest.approx(65504.0, rel=2e-3)


def test_int4_puts_two_codes_into_a_byte_the_first_of_them_lower():
    logits = torch.tensor([[0.0, 1.0, 2.0, 15.0, 7.0]])
    assert encode("int4", logits)["codes"].tolist() == [[0x10, 0xF2, 0x07]]
    assert encode("int8", logits * 17)["codes"].tolist() == [[0, 17, 34, 255, 119]]
    assert decode("int4", logits).tolist() == logits.tolist()


# top<k>


def softmax(logits, temperature=20.0):
    powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 99])
@pytest.mark.parametrize("scale", [0.1, 4.0, 1000.0])
def test_kept_classes_have_their_probabilities_at_the_temperature_of_training(k, scale):
    logits = some_logits(50, 100, scale)
    name, exact = f"top{k}", softmax(halves(logits))
    found, classes = softmax(decode(name, logits).astype(np.float64)), encode(name, logits)["classes"].astype(int)
    rounding = 2.0**-11 * np.abs(logits.numpy()).max() / 20.0  # of `rest`, which is a half
    for wanted, given in ((exact, found), (1 - exact, 1 - found)):
        kept, stored = (np.take_along_axis(part, classes, axis=1) for part in (wanted, given))
        np.testing.assert_allclose(stored, kept, rtol=2 * rounding + 1e-5, atol=1e-12)
    assert (np.sort(classes, axis=1) == np.sort(np.argsort(-exact, axis=1, kind="stable")[:, :k], axis=1)).all()


def test_the_greatest_comes_first_and_of_equal_logits_the_first_class():
    columns = encode("top3", torch.tensor([[1.0, 5.0, 2.0, 2.0, 2.0]]))
    assert columns["classes"].tolist() == [[1, 2, 3]]
    assert columns["values"].tolist() == [[5.0, 2.0, 2.0]]
    expected = 20 * np.log((np.exp(1 / 20) + np.exp(2 / 20)) / 2)
    assert columns["rest"].tolist() == [pytest.approx(expected, rel=2.0**-11)]


@pytest.mark.parametrize(("num_classes", "kind"), [(256, "uint8"), (257, "int16"), (32768, "int16"), (32769, "int32")])
def test_classes_are_the_smallest_integers_that_number_them(num_classes, kind):
    logits = torch.zeros((1, num_classes))
    logits[0, -1] = 1.0
    columns = encode("top1", logits)
    assert columns["classes"].dtype == np.dtype(kind)
    assert columns["classes"].tolist() == [[num_classes - 1]]
    assert find_codec("top1").features(num_classes)["classes"] == List(Value(kind), length=1)


def test_logits_that_nearly_tie_at_the_last_place_may_change_it():
    logits = torch.tensor([[3.0, 1.0, 1.0, 0.0]])
    columns = encode("top2", logits)
    other = logits.numpy() + np.float32([[0.0, 0.0, 1e-4, 0.0]])  # now class 2 comes second
    assert find_codec("top2").distance(columns, other) <= 2e-4


@pytest.mark.parametrize(
    ("change", "least"),
    [
        ({"classes": [[0, 3]]}, 0.9),
        ({"values": [[3.0, 1.5]]}, 0.49),
        ({"rest": [1.25]}, 0.2),
        ({"classes": [[1, 0]]}, 1.9),
    ],
)
def test_every_part_of_a_top_k_label_is_compared(change, least):
    logits = torch.tensor([[3.0, 1.0, 0.9, 0.0]])
    columns = encode("top2", logits)
    changed = columns | {name: np.array(value, dtype=columns[name].dtype) for name, value in change.items()}
    assert find_codec("top2").distance(changed, logits.numpy()) >= least


@pytest.mark.parametrize("value", [7, 255])
def test_classes_that_do_not_exist_are_unusable(value):
    columns = encode("top4", some_logits())
    columns["classes"][8, 2] = value
    assert np.flatnonzero(find_codec("top4").unusable(columns, 7)).tolist() == [8]
    wide = encode("top4", some_logits(3, 300))
    wide["classes"][1, 0] = -1
    assert np.flatnonzero(find_codec("top4").unusable(wide, 300)).tolist() == [1]


@pytest.mark.parametrize("num_classes", [3, 4])
def test_keeping_every_class_is_refused(num_classes):
    with pytest.raises(ConfigError, match=rf"top4 keeps 4 of {num_classes} classes, expected fewer.*float16"):
        find_codec("top4").features(num_classes)


# Names


@pytest.mark.parametrize("name", ["float61", "int3", "topx", "top", "top0", "top05", "top-1", "top1.5", "TOP5", ""])
def test_an_unknown_codec_names_those_that_there_are_and_the_upgrade(name):
    with pytest.raises(ArtifactError, match=rf"unknown label codec '{name}', .*int4.*none.*top<k>.*pip install -U"):
        find_codec(name)


def test_no_labels_cannot_be_decoded():
    codec = find_codec("none")
    assert not codec.has_logits and codec.features(3) == {} and codec.encode(torch.zeros((2, 3))) == {}
    for call in (codec.unusable, codec.decode, codec.distance):
        with pytest.raises(ArtifactError, match="stores no labels; the teachers"):
            call({}, 3)
