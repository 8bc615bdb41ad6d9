"""The scores as modules of the `evaluate` library, for its users; nothing is downloaded.

    import evaluate
    from fadrm_hf.evaluation import metrics

    recovery = evaluate.load(metrics.path("hard_label_recovery"))
    recovery.add_batch(predictions=[3, 1], references=[3, 2], whole=[3, 2])  # classes that two students name
    recovery.compute()  # {"hard_label_recovery": 0.5}

Each is a folder with one script, of which `evaluate.load` takes the first class, and returns what its function in
`fadrm_hf.evaluation.scores` or `fadrm_hf.training.accuracy` returns. `evaluate` keeps its inputs as Arrow tables:
classes are cheap there, logits are not, and all columns are of one length. Images travel as PNG, without loss.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

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
INTEGER, FEATURES = datasets.Value("int64"), datasets.List(datasets.Value("float64"))


def path(name: str) -> str:
    """Return the folder of a metric, as `evaluate.load` takes it.

    Args:
        name: One of `NAMES`.

    Raises:
        ScoreError: If there is none of that name.
    """
    if name not in NAMES:
        raise ScoreError(unknown("metric", name, NAMES))
    return str(_FOLDER / name)


class Score(evaluate.Metric):
    """A metric that the docstrings of its script and class describe.

    Attributes:
        columns: The types of its inputs.
        paper: BibTeX of what to cite, if anything.
    """

    columns: ClassVar[dict[str, Any]] = {}
    paper: ClassVar[str] = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=sys.modules[type(self).__module__].__doc__,
            citation=self.paper,
            inputs_description=type(self).__doc__,
            features=datasets.Features(self.columns),
        )


class StudentScore(Score):
    """A score of DD-Ranking, from the classes that several students name.

    Attributes:
        score: Takes the accuracy of each column but `references` by its name, and weights.
    """

    paper = _DD_RANKING
    score: ClassVar[Callable[..., float]]

    def _compute(self, references: list[int], **inputs: Any) -> dict[str, float]:
        arguments = {name: accuracy(x, references) if name in self.columns else x for name, x in inputs.items()}
        return {self.name: type(self).score(**arguments)}


def integers(*names: str) -> dict[str, Any]:
    """Return columns of integers with these names, and `references`."""
    return dict.fromkeys((*names, "references"), INTEGER)


def accuracy(guessed: Sequence[int], references: Sequence[int]) -> float:
    """Return the fraction of images with a class that a student names, from columns as `evaluate` gives them."""
    return accuracy_of_guesses(torch.tensor(guessed)[:, None], torch.tensor(references))
