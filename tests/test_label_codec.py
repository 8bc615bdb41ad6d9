import numpy as np
import pytest
import torch
from datasets import Features, List, Value

from fadrm_hf.errors import ArtifactError, TeacherError
from fadrm_hf.label_codec import CODECS, find_codec


@pytest.mark.parametrize("name", sorted(CODECS))
def test_every_codec_stores_what_its_features_say_and_gives_logits_back(name):
    logits = torch.randn((7, 5), generator=torch.Generator().manual_seed(0)) * 4
    codec = find_codec(name)
    columns = codec.encode(logits)
    assert codec.name == name
    assert set(columns) == set(codec.features(5))
    assert all(len(column) == 7 for column in columns.values())
    decoded = codec.decode({name: column.numpy() for name, column in columns.items()})
    assert decoded.dtype == np.float32
    assert decoded.shape == (7, 5)
    again = codec.encode(torch.from_numpy(decoded))
    assert all(torch.equal(again[name], column) for name, column in columns.items())


def test_float16_rounds_each_logit_once():
    logits = torch.tensor([[1.0, -65504.0, 1 / 3]])
    columns = find_codec("float16").encode(logits)
    assert columns["logits"].dtype == torch.float16
    decoded = find_codec("float16").decode({"logits": columns["logits"].numpy()})
    assert decoded.tolist() == [[1.0, -65504.0, float(np.float16(1 / 3))]]
    assert find_codec("float16").features(3) == Features({"logits": List(Value("float16"), length=3)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 7e4, -7e4])
def test_values_that_float16_cannot_hold_are_refused_with_their_row(value):
    logits = torch.zeros((4, 3))
    logits[2, 1] = value
    with pytest.raises(TeacherError, match=r"logits of row 2 hold .*expected finite values within ±65504"):
        find_codec("float16").encode(logits)


def test_an_unknown_codec_names_the_near_one_and_the_upgrade():
    with pytest.raises(ArtifactError, match=r"'float61'; did you mean 'float16'\?.*pip install -U fadrm_hf"):
        find_codec("float61")
