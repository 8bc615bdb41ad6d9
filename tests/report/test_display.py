"""What an artifact shows of itself in an interpreter and in a notebook."""

import base64
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fixtures import artifacts
from PIL import Image

from fadrm_hf.artifact.location import LocalFolder
from fadrm_hf.artifact.manifest import ClassRecord, read_manifest, write_manifest
from fadrm_hf.training.loader import load_distilled

HOSTILE = '<script>alert("x")</script>'
RESULT = {
    "images": "distilled",
    "labels": "soft",
    "student": f"timm/{HOSTILE}",
    "protocol": "fadrm",
    "epochs": 3,
    "num_seeds": 3,
    "top1": {"mean": 0.512, "std": 0.013},
}


class Page(HTMLParser):
    """Tags in order, the attributes of the last of each, and all text."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], {}, ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes[tag] = dict(attrs)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + "\n"


@pytest.fixture
def shown(tmp_path):
    """An artifact whose names are hostile, with an evaluation, and its page."""
    folder = artifacts.make_artifact(tmp_path / "run")
    (folder / "results/fadrm-resnet18.json").write_text(json.dumps(RESULT))
    other = RESULT | {"student": "convnet3"}  # so both are named
    (folder / "results/fadrm-convnet3.json").write_text(json.dumps(other))
    distilled, manifest = load_distilled(folder), read_manifest(folder)
    names = (HOSTILE, *manifest.classes.names[1:])
    write_manifest(folder, replace(manifest, classes=ClassRecord(manifest.classes.ids, names, manifest.classes.hash)))
    distilled = replace(distilled, location=LocalFolder(folder))
    return distilled, Page(distilled._repr_html_())


def test_a_line_says_what_it_is(shown):
    distilled, _ = shown
    assert repr(distilled) == (
        f"<Distilled {distilled.name}: trees distilled by FADRM, 2 images per class; 8 images of 8 px, "
        "3 epochs of float16 labels>"
    )


def test_foreign_text_is_shown_as_text_and_all_tags_are_closed(shown):
    _, page = shown
    assert page.open == [] and set(page.tags) == {"h4", "img", "p", "table", "tr", "th", "td"}
    assert page.text.count(HOSTILE) == 2  # a class and a student
    assert page.attributes["img"]["alt"] == f"{HOSTILE}, birch, cedar, elm"


def test_the_picture_has_a_column_for_each_class(shown):
    distilled, page = shown
    kind, _, data = page.attributes["img"]["src"].partition(",")
    assert kind == "data:image/png;base64"  # nothing is fetched
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data))))
    rows = distilled.images.reshape(2, 4, 3, 8, 8).permute(0, 3, 1, 4, 2)  # images of one index stand together
    assert np.array_equal(pixels, rows.reshape(16, 32, 3).numpy())


def test_the_numbers_are_those_on_file(shown):
    _, page = shown
    lines = page.text.splitlines()
    assert lines[lines.index("teacher") + 1] == "squeeze/resnet10_narrow, top-1 98.7 %"
    assert "51.2 ± 1.3 %" in lines and "90.2 s" in lines


def test_of_one_seed_no_deviation_is_known(tmp_path):
    folder = artifacts.make_artifact(tmp_path / "run")
    one = RESULT | {"num_seeds": 1, "top1": {"mean": 0.2, "std": 0.0, "values": [0.2]}}
    (folder / "results/fadrm-resnet18.json").write_text(json.dumps(one))
    assert "20.0 %" in Page(load_distilled(folder)._repr_html_()).text.splitlines()
