import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures.artifacts import make_artifact, make_manifest, relabel
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt
from PIL import Image

from fadrm_hf.artifact.manifest import (
    FileRecord,
    MethodRecord,
    SourceRecord,
    TableBytes,
    TeacherRecord,
    refresh_files,
)
from fadrm_hf.errors import ArtifactError
from fadrm_hf.methods.fadrm import PAPER
from fadrm_hf.publishing.verify import verify_artifact
from fadrm_hf.report.card.metadata import card_configs
from fadrm_hf.report.card.results import read_results, replace_results
from fadrm_hf.report.card.scores import Score, Scores
from fadrm_hf.report.card.writing import render_card, write_card
from fadrm_hf.runtime.files import write_json

EXPECTED = Path(__file__).parent.parent / "fixtures/card.md"
ROWS = ('{"image": <PNG of 268 bytes>,\n "label": 0}', '{"epoch": 0,\n "image": 4}')


def result(images, labels, top1, num_seeds=3):
    def summary(mean):
        return {"mean": mean, "std": 0.0123, "values": [mean] * num_seeds}

    return {
        "protocol": "fadrm",
        "student": "timm/resnet18",
        "images": images,
        "labels": labels,
        "epochs": 3,
        "num_seeds": num_seeds,
        "top1": summary(top1),
        "top5": summary(0.987),
        "best_epoch_top1": summary(top1 + 0.01) if labels == "soft" else None,
    }


CONTRIBUTED = result("distilled", "soft", 0.7011) | {
    "contributed": True,
    "label_codec": "int8",
    "artifact": {"repository": "org/fadrm-trees-ipc2", "revision": "0123456789abcdef0123456789abcdef01234567"},
}
RESULTS = [
    CONTRIBUTED,
    result("whole", "hard", 0.99, 1),
    result("random_real", "hard", 0.5312),
    result("distilled", "soft", 0.7184) | {"label_codec": "float16"},
]


@pytest.fixture
def artifact(tmp_path):
    folder = make_artifact(tmp_path / "fadrm-trees-ipc2")
    (folder / "results/fadrm-resnet18.json").unlink()
    (folder / "assets/grid.png").unlink()
    return folder


def render(manifest, results=(), pictures=()):
    return render_card(manifest, results, ROWS, pictures, "org/fadrm-trees-ipc2")


def test_full_text():
    """The whole card. To accept a change, write the new text to the file and read the difference."""
    manifest = replace(make_manifest(), bytes=TableBytes(4_539, 8_078_000))
    assert render(manifest, RESULTS, ["accuracy", "grid", "recovery"]) == EXPECTED.read_text("utf-8")


def test_what_was_measured_comes_first_and_fits_the_page():
    """The Hub's column is about 740 pixels wide: six columns, and 36 settings only for those who ask."""
    settings = {f"setting_{number}": number for number in range(36)}
    config = make_manifest().config | {"method": settings}
    text = render(replace(make_manifest(), config=config), RESULTS, ["accuracy", "grid", "recovery"])
    body = text.partition("\n---\n")[2]
    titles = [line for line in body.splitlines() if line.startswith("## ")]
    assert titles[:3] == ["## Results", "## Load it", "## How it was made"]
    tables = MarkdownIt("commonmark").enable("table").parse(body)
    heads = [index for index, token in enumerate(tables) if token.type == "thead_open"]
    widths = [sum(token.type == "th_open" for token in tables[head : head + 30]) for head in heads]
    assert widths == [6, 6, 4, 2, 2]
    folded = re.findall(r"<details>.*?</details>", body, re.DOTALL)
    assert any("`method.setting_35`" in part for part in folded)
    assert "method.setting_" not in re.sub(r"<details>.*?</details>", "", body, flags=re.DOTALL)


def test_a_source_that_readers_do_not_have_is_asked_for_and_no_number_is_promised_that_is_not_there():
    """Who has only the repository cannot know where the photographs of somebody else lie."""
    record = make_manifest().source
    for source, is_private in (
        (replace(record, name="photos", revision=None), True),
        (replace(record, name="digits", revision=None), False),
        (replace(record, name="org/trees", revision="0123abcd"), False),
    ):
        text = render(replace(make_manifest(), source=source), RESULTS)
        assert ("--source.name PATH" in text and "source=PATH" in text) == is_private, source.name
    assert "fadrm-hf reproduce" in render(make_manifest(), RESULTS)
    unmeasured = render(make_manifest())
    assert "reproduce" not in unmeasured.partition("## How it was made")[0], "there is no number yet"
    assert "fadrm-hf train-student" in unmeasured


def test_commands_train_the_student_that_was_measured():
    """The first of the authors' results on these images; before there is one, the student of the recipe."""
    narrow = RESULTS[-1] | {"student": "timm/resnet10_narrow"}
    assert "--student timm/resnet10_narrow\n" in render(make_manifest(), [narrow])
    foreign = narrow | {"contributed": True}
    assert "--student timm/resnet18\n" in render(make_manifest(), [foreign, narrow | {"images": "whole"}])
    own = make_manifest()
    own.config["student"] = {"student": "torchvision/resnet18"}
    assert "--student torchvision/resnet18\n" in render(own)
    own.config["student"] = {"student": "resnet18; rm -rf x"}
    assert "--student timm/resnet18\n" in render(own)


def test_nobody_is_told_to_install_a_name_that_is_in_no_index():
    text = render(make_manifest(), RESULTS)
    assert "pip install fadrm" not in text and "`pip install .` in a copy of its repository" in text


def test_what_is_absent_is_said_to_be_not_measured():
    teacher = TeacherRecord("timm/resnet18.tv_in1k", "ab" * 32)
    text = render(replace(make_manifest(), teachers=(teacher,), machine={}, stages={}))
    assert text.count("| not measured |") == 5 + 1  # kinds of evaluation, and the teacher's accuracy
    assert "| timm/resnet18.tv_in1k | – | not measured | by name |" in text
    assert "| machine | not recorded |" in text
    assert "import fadrm_hf.networks.small_images" not in text
    assert "![" not in text and "<img" not in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceRecord("digits", "ab", None, "cc-by-4.0", None), {"license": "cc-by-4.0"}),
        (SourceRecord("digits", "ab"), {"license": "unknown"}),
        (
            SourceRecord("ILSVRC/imagenet-1k", "ab", "c0ffee", "other", "https://image-net.org/download"),
            {
                "license": "other",
                "license_name": "terms-of-ilsvrc-imagenet-1k",
                "license_link": "https://image-net.org/download",
                "source_datasets": ["ILSVRC/imagenet-1k"],
            },
        ),
        (
            SourceRecord("/home/ada/photos", "ab", None, "My Licence 2"),
            {"license": "other", "license_name": "my-licence-2"},
        ),
    ],
)
def test_licence_and_source_in_the_header(source, expected):
    data = DatasetCard(render(replace(make_manifest(), source=source))).data.to_dict()
    keys = ("license", "license_name", "license_link", "source_datasets")
    assert {key: data[key] for key in keys if key in data} == expected


def test_what_the_hub_searches_by():
    data = DatasetCard(render(make_manifest())).data
    assert {"dataset-distillation", "soft-labels", "fadrm_hf", "fadrm", "ipc-2", "trees"} < set(data.tags)
    assert f"arxiv:{PAPER.arxiv}" in data.tags
    baseline = DatasetCard(render(replace(make_manifest(), method="random_real", label_codec="none"))).data
    assert "soft-labels" not in baseline.tags
    assert not [tag for tag in baseline.tags if tag.startswith("arxiv:")]


def test_a_gated_source_asks_for_consent_to_its_terms():
    source = SourceRecord("org/faces", "ab", "c0ffee", "other", "https://example.org/terms", gated=True)
    data = DatasetCard(render(replace(make_manifest(), source=source))).data.to_dict()
    assert "org/faces" in data["extra_gated_prompt"] and "https://example.org/terms" in data["extra_gated_prompt"]
    assert list(data["extra_gated_fields"].values()) == ["checkbox"]
    assert "extra_gated" not in render(make_manifest())


def test_smaller_datasets_are_offered_where_there_are_some():
    def offered(ipc):
        return [config["config_name"] for config in card_configs(replace(make_manifest(), ipc=ipc))][3:]

    assert offered(1) == []
    assert offered(10) == ["ipc1", "ipc2", "ipc5"]
    assert offered(50) == ["ipc1", "ipc2", "ipc5", "ipc10", "ipc20"]
    assert "smaller" not in render(replace(make_manifest(), ipc=1))


def test_configs_hold_no_splits_that_would_break_filters():
    assert "dataset_info" not in DatasetCard(render(make_manifest())).data.to_dict()


def test_labels_in_a_repository_of_their_own(artifact):
    apart = replace(
        make_manifest(),
        label_repository="org/labels@0123abcd",
        files={"soft_labels/train-00000-of-00001.parquet": FileRecord("ab", 12_300_000)},
    )
    shutil.rmtree(artifact / "soft_labels")
    text = write_card(artifact, apart, name="org/fadrm-trees-ipc2").read_text()
    assert [config["config_name"] for config in DatasetCard(text).data.configs] == ["default", "ipc1"]
    labels = '"org/labels", "soft_labels", revision="0123abcd", split="train"'
    assert text.count(labels) == 2 and 'fadrm-trees-ipc2", "soft_labels"' not in text
    assert "`org/labels@0123abcd`" in text and "| soft labels | 12.3 MB," in text


SCORES = Scores(
    scores={
        "hard_label_accuracy": Score(0.1234, 0.011),
        "hard_label_recovery": Score(0.5, None),
        "improvement_over_random": Score(-0.02, 0.005),
        "label_robust_score": Score(0.1918),
        "compression_images": Score(12.97),
        "compression_bytes": Score(5123.4),
        "pixel_entropy": Score(6.27, 0.548),
        "test_copies": Score(2.0),
    },
    missing={"augmentation_robust_score": "a command", "feature_entropy": "a network"},
    course=({"iteration": 500.0, "num_images": 100.0, "pixel_entropy": 6.1, "feature_entropy": 6.2}, {"of": 1.0}),
    settings={"student": "timm/<b>|", "network": "`<i>`", "has_taught": True},
)


def test_scores_in_their_units_and_what_was_not_measured():
    text = render_card(make_manifest(), RESULTS, ROWS, [], "org/fadrm-trees-ipc2", SCORES)
    section = text.partition("## Scores")[2].partition("## Size and cost")[0]
    assert [line.split(" | ")[1] for line in section.splitlines() if line.endswith(("more |", "less |", "|  |"))] == [
        "12.3 ± 1.1 %", "+50.0 points", "-2.0 ± 0.5 points", "0.192", "13 : 1", "5,123 : 1", "6.270 ± 0.548 bits", "2",
    ]  # fmt: skip
    assert "Not measured: augmentation-robust score (ARS); entropy of features, per image." in section
    assert "\n| 500 | 100 | 6.100 | 6.200 |\n\n" in section  # and what a newer version measures is left out
    assert "a teacher of these images" in section
    assert "&lt;b>" in section and not {"<b>", "<i>", "`"} & set(re.findall(r"<\w+>|`", section))
    assert "## Scores" not in render(make_manifest(), RESULTS)


def test_a_local_path_is_not_made_public():
    source = SourceRecord("/home/ada/photos", "ab")
    text = render(replace(make_manifest(), source=source))
    assert "photos" in text
    assert "/home" not in text


def test_hostile_names_stay_in_their_cells():
    teacher = TeacherRecord("a|b`\n<script>", "ab" * 32)
    manifest = replace(make_manifest(), teachers=(teacher,), config={"method": {"name": "{{ 7 * 7 }} | x"}})
    text = render(manifest)
    assert r"| a\|b' &lt;script> | – |" in text
    assert r"| `method.name` | {{ 7 * 7 }} \| x |" in text


def test_hostile_text_reaches_no_link_and_no_mark():
    source = SourceRecord("a <!-- /results -->", "ab", "`x`", "<b>", "javascript:alert(1)")
    bad = result("distilled", "soft", 0.5) | {"student": "<!-- /results -->\n| x |", "protocol": "<script>"}
    text = render(replace(make_manifest(), source=source, label_repository="<i>|"), [bad])
    body = text.partition("\n---\n")[2]
    assert "javascript:" not in text
    assert not {"<b>", "<script>", "<i>"} & set(re.findall(r"<\w+>", body))
    assert body.count("<!-- /results -->") == 1
    assert r"| &lt;!-- /results --> \| x \| | &lt;script> |" in body


def test_a_folders_name_stays_a_string_in_the_code():
    text = render_card(make_manifest(), [], ROWS, [], 'a"]); import os; $(ls) `x`')
    assert 'load_dataset("a\\"]); import os; $(ls) \\u0060x\\u0060", split="train")' in text
    assert "fadrm-hf verify 'a\"]); import os; $(ls) `x`'" in text


def test_a_random_real_baseline_is_not_called_distilled():
    text = render(replace(make_manifest(), method="random_real"))
    assert "chosen at random from example/trees" in text
    assert "distilled from" not in text


def test_each_method_is_cited_by_its_own_paper():
    assert PAPER.bibtex in render(make_manifest())
    for method in ("random_real", "sre9l"):
        text = render(replace(make_manifest(), method=method))
        assert "bibtex" not in text and "arxiv.org" not in text and "made with `fadrm_hf`" in text
    assert "by SRE9L," in text


def test_stored_epochs_that_are_fewer_than_those_of_training():
    assert "random" not in render(make_manifest()).partition("## Replay")[2].partition("## Licence")[0]
    config = make_manifest().config
    text = render(replace(make_manifest(), config=config | {"relabel": config["relabel"] | {"epochs": 30}}))
    assert "Training takes 30 epochs, of which 3 are stored" in text and "2410.15919" in text


@pytest.fixture
def published(artifact):
    card = write_card(artifact, make_manifest(), name="org/fadrm-trees-ipc2")
    refresh_files(artifact)
    return card


def test_the_table_of_results_is_brought_up_to_date_without_the_tables(published, tmp_path):
    before = published.read_text()
    folder = tmp_path / "sent"
    write_json(folder / "results/mine.json", CONTRIBUTED)
    after = replace_results(before, read_results(folder))
    lines = after.replace("\N{NO-BREAK SPACE}", " ").splitlines()
    shown, folded = (line for line in lines if line.startswith("| distilled images + soft labels |"))
    assert shown.endswith("| 70.1 ± 1.2 | 98.7 ± 1.2 | others |")
    assert folded.endswith("| 71.1 ± 1.2 | int8 | org/fadrm-trees-ipc2@0123456789ab |")
    assert replace_results(after, []) == before
    assert replace_results(after, read_results(folder)) == after


def test_a_card_with_no_table_of_results_is_refused(published):
    text = published.read_text()
    for broken in ("# A card", text.replace("<!-- /results -->", ""), text + text):
        with pytest.raises(ArtifactError, match="one table of results"):
            replace_results(broken, [])


def test_every_result_has_a_row_those_of_others_last_of_their_kind():
    second = RESULTS[-1] | {"protocol": "hard_phase", "student": "timm/resnet50"}
    shown = render(make_manifest(), [*RESULTS, second]).partition("<details>")[0]
    rows = [line for line in shown.splitlines() if line.endswith(("authors |", "others |"))]
    assert [line.split("|")[2].strip() for line in rows[:3]] == ["timm/resnet18", "timm/resnet50", "timm/resnet18"]
    assert ["others" in line for line in rows[:3]] == [False, False, True]


def test_the_name_it_was_published_by_is_kept(published):
    write_json(published.parent / "results/0.json", RESULTS[-1])
    assert (
        'load_dataset("org/fadrm-trees-ipc2", split="train")'
        in write_card(published.parent, make_manifest()).read_text()
    )
    assert (
        'load_dataset("you/copy", split="train")'
        in write_card(published.parent, make_manifest(), name="you/copy").read_text()
    )


def test_the_card_and_its_pictures_are_written_and_verified(artifact):
    work = artifact.with_name(artifact.name + ".work")
    lines = [{"stage": "recover", "iteration": i, "ce": 5 / i, "bn": 9 / i} for i in range(1, 9)]
    (work / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, {"stage": "relabel"}]))
    for index, one in enumerate(RESULTS):
        write_json(artifact / f"results/{index}.json", one)
    card = DatasetCard.load(write_card(artifact, make_manifest(), work))
    refresh_files(artifact)
    assert verify_artifact(artifact, 4, relabel) == []
    assert {file.name for file in (artifact / "assets").iterdir()} == {"grid.png", "accuracy.png", "recovery.png"}
    assert all(f"assets/{name}.png" in card.text for name in ("grid", "accuracy", "recovery"))
    assert '    "fadrm-trees-ipc2", "soft_labels", split="train"' in card.text
    assert card.data.configs[1]["config_name"] == "soft_labels"
    with Image.open(artifact / "assets/grid.png") as grid:
        assert grid.width > grid.height


def test_pictures_are_the_same_bytes_each_time(artifact):
    work = artifact.with_name(artifact.name + ".work")
    write_json(artifact / "results/0.json", RESULTS[-1])
    write_card(artifact, make_manifest(), work)
    first = {file.name: file.read_bytes() for file in (artifact / "assets").iterdir()}
    write_card(artifact, make_manifest(), work)
    assert {file.name: file.read_bytes() for file in (artifact / "assets").iterdir()} == first


def test_the_size_of_labels_is_compared_with_float16():
    many = replace(make_manifest(), bytes=TableBytes(1_000, 24 * (42 + 2 * 4) // 4))
    text = render(many)
    assert "| stored as | float16, 12 bytes per view with its label |" in text
    assert "| relative to float16 | 0.25 of the bytes of all logits of 3 epochs" in text


@pytest.mark.parametrize("content", ["", "[]", "[" * 100_000, '{"images": "distilled"}', '{"top1": 3}'])
def test_a_damaged_result_is_named(artifact, content):
    (artifact / "results").mkdir(exist_ok=True)
    (artifact / "results/bad.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"results/bad\.json is not an evaluation.*train-student"):
        read_results(artifact)


FOREIGN = (
    "[x](https://evil.example)",
    "![x](https://evil.example/x.png)",
    "<https://evil.example>",
    "https://evil.example",
    "see www.evil.example",
    "me@evil.example",
    "<img src=//evil.example>",
    "x\n# evil.example\n",
    "x\n\n[x]: https://evil.example\n",
    "` [x](https://evil.example) `",
    "\\[x](https://evil.example)",
    "x\x1b[2J\u202eevil.example",
)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_foreign_text_is_no_link_no_picture_and_no_heading(foreign):
    """As a parser of Markdown sees it; addresses are in code, of which the Hub makes no links."""
    made = make_manifest()
    config = {"method": {"name": foreign, foreign: foreign}, "relabel": made.config["relabel"]}
    source = SourceRecord(foreign, "ab", None, foreign, "https://terms.example")
    teacher = TeacherRecord(foreign, "ab" * 32, foreign, 0.5, foreign)
    classes = replace(made.classes, names=(foreign, *made.classes.names[1:]))
    bad = result("distilled", "soft", 0.5) | {"student": foreign, "protocol": foreign}
    changed = replace(
        made, source=source, teachers=(teacher,), config=config, classes=classes, machine={"cpu": foreign},
        label_repository=foreign, method_record=MethodRecord(foreign),
    )  # fmt: skip
    card = render(changed, [bad])
    assert "\x1b" not in card and "\u202e" not in card
    body = card.partition("\n---\n")[2]
    blocks = MarkdownIt("commonmark").enable("table").parse(body)
    headings = [blocks[index + 1].content for index, block in enumerate(blocks) if block.type == "heading_open"]
    assert sum("evil" in heading for heading in headings) <= 1  # the title
    for token in (token for block in blocks for token in block.children or []):
        assert "evil" not in str(token.attrs) or not token.type.startswith(("link", "image"))
        assert token.type != "html_inline" or "evil" not in token.content
        if token.type == "text":
            assert re.search(r"://|www\.|\w@[\w.-]*\.\w", token.content) is None
    assert not [block for block in blocks if block.type == "html_block" and "evil" in block.content]
