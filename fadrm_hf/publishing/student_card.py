"""The card of a student: what it is and is worth, how it was trained, how it is loaded."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData, constants

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.config.plain_data import flatten
from fadrm_hf.hub.repository import RepoName
from fadrm_hf.networks.small_images import is_registered_here
from fadrm_hf.publishing.received_results import without_folders
from fadrm_hf.report.card.metadata import card_title, licence_fields, public_source
from fadrm_hf.report.card.results import ROWS, Result
from fadrm_hf.report.card.text import render

# In the place of the repository's name while a student is only a folder.
PLACEHOLDER = "ORG/MODEL"


def render_student_card(
    architecture: str, manifest: Manifest, result: Result, name: RepoName | None, seed: int, num_parameters: int
) -> str:
    """Return the text of the card; `PLACEHOLDER` stands for the model's repository.

    Args:
        architecture: The network's name in timm.
        manifest: The artifact that it was trained on.
        result: Its evaluation.
        name: The artifact's repository and commit, if it is on the Hub.
        seed: Which of the evaluation's students it is.
        num_parameters: Numbers in its weights.
    """
    accuracies = list(zip(result["top1"]["values"], result["top5"]["values"], strict=True))
    return render(
        "student_card.md",
        metadata=_metadata(architecture, manifest, result, name, seed).to_yaml(),
        model=PLACEHOLDER,
        title=_title(architecture, manifest),
        architecture=architecture,
        num_parameters=num_parameters,
        trained_on=ROWS.get(
            (result["images"], result["labels"]), f"{result['images']} images, {result['labels']} labels"
        ),
        dataset=name,
        dataset_url=_page(name) if name else None,
        dataset_title=card_title(manifest),
        has_soft_labels=result["labels"] == "soft",
        source=public_source(manifest.source.name),
        licence=manifest.source.licence,
        licence_link=manifest.source.licence_link,
        num_images=result["num_images"],
        num_test_images=result["num_test_images"],
        num_classes=len(manifest.classes.ids),
        size=manifest.pixels.size,
        mean=list(manifest.pixels.mean),
        std=list(manifest.pixels.std),
        needs_import=is_registered_here(architecture),
        accuracies=accuracies,
        top1=result["top1"],
        top5=result["top5"],
        seed=seed,
        command=without_folders(result.get("command", "")),
        settings=[item for item in flatten(result["settings"]).items() if item[0] not in ("num_workers", "student")],
        versions={key: result["versions"][key] for key in ("fadrm_hf", "timm", "torch") if key in result["versions"]},
    )


def _metadata(
    architecture: str, manifest: Manifest, result: Result, name: RepoName | None, seed: int
) -> ModelCardData:
    """Return the card's YAML header."""
    paper = manifest.paper
    tags = ["image-classification", "timm", "transformers", "dataset-distillation", "fadrm_hf"]
    tags += [f"arxiv:{paper.arxiv}"] if paper else []
    return ModelCardData(
        library_name="timm",
        pipeline_tag="image-classification",
        tags=tags,
        datasets=[name.id] if name else None,
        metrics=["accuracy"],
        model_name=_title(architecture, manifest),
        eval_results=[_evaluation(manifest, result, name, k, seed) for k in (1, 5)],
        **licence_fields(manifest.source),
    )


def _evaluation(manifest: Manifest, result: Result, name: RepoName | None, k: int, seed: int) -> EvalResult:
    """Return the top-k accuracy of this student on the source's test images."""
    where: dict[str, Any] = {"source_name": f"results of {name.id}", "source_url": _page(name)} if name else {}
    return EvalResult(
        task_type="image-classification",
        task_name="Image classification",
        dataset_type=public_source(manifest.source.name),
        dataset_name=public_source(manifest.source.name).rpartition("/")[2],
        dataset_revision=manifest.source.revision,
        dataset_split=manifest.config.get("source", {}).get("test_split") or "test",
        metric_type="accuracy",
        metric_name=f"top-{k} accuracy",
        metric_value=result[f"top{k}"]["values"][seed],
        metric_args={"top_k": k},
        verified=False,
        **where,
    )


def _title(architecture: str, manifest: Manifest) -> str:
    return f"{architecture}, trained on {card_title(manifest)}"


def _page(name: RepoName) -> str:
    """Return the dataset's page, which lists all evaluations."""
    return f"{constants.ENDPOINT}/datasets/{name.id}"
