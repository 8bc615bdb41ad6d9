"""A model is measured from Python as the protocol measures a student, to the last image."""

from types import SimpleNamespace

import pytest
import torch
from fixtures.runs import STUDENT, copy_artifact
from torch import nn
from torch.utils.data import DataLoader

import fadrm_hf
from fadrm_hf.config import SourceConfig, StudentConfig
from fadrm_hf.data.sources import load_source
from fadrm_hf.errors import HubError, SourceError, StudentError
from fadrm_hf.networks.students import create_student
from fadrm_hf.runtime.progress import QUIET
from fadrm_hf.training.accuracy import topk_accuracy
from fadrm_hf.training.train_student import train_students

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def distilled(finished):
    return fadrm_hf.load_distilled(finished)


def test_the_number_is_that_of_train_student(distilled, tmp_path):
    source, students = load_source(SourceConfig(name="digits", size=16)), []
    protocol = StudentConfig(student=STUDENT, epochs=2, num_seeds=1)
    result = train_students(
        distilled, source, protocol, tmp_path, QUIET, CPU, lambda student, _: students.append(student)
    )
    found = fadrm_hf.evaluate(students[0], distilled)
    assert (found.top1, found.top5) == (result["top1"]["mean"], result["top5"]["mean"])
    assert found.num_images == result["num_test_images"] == 500 and not found.on_training_images
    assert str(found) == f"top-1 {100 * found.top1:.1f} %, top-5 {100 * found.top5:.1f} % of 500 test images"


def test_test_images_of_the_digits_are_those_of_a_rule_of_the_library(distilled):
    source, test = load_source(SourceConfig(name="digits", size=16)), distilled.test_images()
    assert repr(test) == "TestImages(500 of 10 classes, 3 x 16 x 16, normalised)"
    assert len(test) == 500 and torch.equal(test.labels, torch.as_tensor(source.labels("test")))
    shown = torch.cat(list(test.batches()))
    assert torch.equal(shown, source.normalise(source.pixels("test", range(500))))
    images, labels = next(iter(DataLoader(test, batch_size=7)))
    assert torch.equal(images, shown[:7]) and torch.equal(labels, test.labels[:7])
    with pytest.raises(IndexError, match="test image 500 was requested, there are 500"):
        test[500]


def test_large_test_sets_are_decoded_as_they_are_used(distilled, monkeypatch):
    kept = torch.cat(list(distilled.test_images().batches(range(60))))
    monkeypatch.setattr("fadrm_hf.training.testing._MOST_BYTES_IN_MEMORY", 0)
    assert torch.equal(torch.cat(list(distilled.test_images().batches(range(60)))), kept)


class Wrapped(nn.Module):
    """A model as those of transformers are: its logits are an attribute of what it gives."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.model(pixel_values))


def test_a_model_may_come_from_anywhere_and_is_left_as_it_was(distilled, finished):
    model = create_student(STUDENT, 10, 16)
    model.train()
    frozen = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    test = distilled.test_images()
    found = fadrm_hf.evaluate(model, test)
    assert model.training and not frozen.training, "a layer that was frozen trains again"
    with torch.inference_mode():
        logits = torch.cat([model.eval()(batch) for batch in test.batches()])
    assert found.top1 == topk_accuracy(logits, test.labels)
    assert fadrm_hf.evaluate(Wrapped(model), str(finished)) == found
    no_weights = nn.Sequential(nn.AdaptiveAvgPool2d((1, 10)), nn.Flatten(), nn.AvgPool1d(3))
    assert 0 <= fadrm_hf.evaluate(no_weights, test).top1 < 0.4


def test_a_model_of_other_classes_is_refused_with_the_remedy(distilled):
    with pytest.raises(StudentError, match=r"gives \(50, 1000\) for 50 images, expected \(50, 10\).*10 classes"):
        fadrm_hf.evaluate(create_student(STUDENT, 1000, 16), distilled)
    with pytest.raises(StudentError, match="gives tuple for 50 images"):
        fadrm_hf.evaluate(type("Two", (nn.Module,), {"forward": lambda self, images: (images, images)})(), distilled)


def test_a_source_that_has_moved_is_named(distilled):
    assert len(distilled.test_images(source="digits")) == 500
    with pytest.raises((SourceError, HubError), match="nowhere"):
        distilled.test_images(source="./nowhere")


def test_the_cards_python_runs(finished, tmp_path, monkeypatch, capsys):
    folder = copy_artifact(finished, tmp_path)
    monkeypatch.chdir(folder.parent)
    blocks = (folder / "README.md").read_text().split("```python\n")
    program = next(block.partition("```")[0] for block in blocks if "fadrm_hf.evaluate" in block)
    exec(program, {"model": create_student(STUDENT, 10, 16)})
    assert "of 500 test images" in capsys.readouterr().out
