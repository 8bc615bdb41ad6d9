"""The scores as modules of the `evaluate` library, for those who measure with it; none is fetched.

    import evaluate
    from fadrm_hf.evaluation import metrics

    recovery = evaluate.load(metrics.path("hard_label_recovery"))
    recovery.add_batch(predictions=[3, 1], references=[3, 2], whole=[3, 2])  # classes that two students name
    recovery.compute()  # {"hard_label_recovery": 0.5}

Each is a folder with one script, as `evaluate.load` reads it, and gives what the function of
`fadrm_hf.evaluation.scores` or `fadrm_hf.training.accuracy` gives. `evaluate` keeps what it is fed as Arrow tables:
classes are cheap there, logits are not, and all columns are of one length. Images travel as PNG, without loss.
"""

from collections.abc import Sequence
from pathlib import Path

import datasets
import evaluate
import torch

from fadrm_hf.errors import ScoreError, unknown
from fadrm_hf.training.accuracy import accuracy_of_guesses

_DD_RANKING = """\
@article{li2025ddranking,
  title = {DD-Ranking: Rethinking the Evaluation of Dataset Distillation},
  author = {Li, Zekai and Zhong, Xinhao and others},
  journal = {arXiv preprint arXiv:2505.13300},
  year = {2025},
}
"""

_FOLDER = Path(__file__).parent
NAMES = tuple(sorted(script.stem for script in _FOLDER.glob("*/*.py") if script.stem == script.parent.name))


def path(name: str) -> str:
    """The folder of a metric, as `evaluate.load` takes it.

    Args:
        name: One of `NAMES`.

    Raises:
        ScoreError: If there is none of that name.
    """
    if name not in NAMES:
        raise ScoreError(unknown("metric", name, NAMES))
    return str(_FOLDER / name)


def of_classes(description: str, inputs: str, *others: str) -> evaluate.MetricInfo:
    """What `evaluate` is told of a score of DD-Ranking, which takes the classes that several students name.

    Args:
        description: What it is.
        inputs: What its columns hold.
        others: Its columns besides `predictions` and `references`.
    """
    columns = ("predictions", "references", *others)
    features = datasets.Features({name: datasets.Value("int64") for name in columns})
    return evaluate.MetricInfo(
        description=description, citation=_DD_RANKING, inputs_description=inputs, features=features
    )


def accuracy(guessed: Sequence[int], references: Sequence[int]) -> float:
    """Fraction of images whose class a student names, from columns as `evaluate` gives them."""
    return accuracy_of_guesses(torch.tensor(guessed)[:, None], torch.tensor(references))
