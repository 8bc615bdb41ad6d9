"""EL2N-easy: the coreset of the images that the teacher errs least on.

Score: Deep Learning on a Data Diet (Paul, Ganguli, Dziugaite; 2021), https://arxiv.org/abs/2107.07075, §2.
Selection: the lowest scores of each class's whole training set, as many of every class, after "reversed EL2N" of
https://arxiv.org/abs/2502.06434, which finds easy images better than hard ones where few remain.

For image x of class y: EL2N(x) = ||softmax(f(x)) - onehot(y)||; of each class the ipc images with the least are kept
(`fadrm_hf.recovery.patches.coresets`).

Differences: the score is averaged over ten networks early in training by the first paper; here it is that of the first
teacher, trained to the end.
"""

from dataclasses import dataclass

from fadrm_hf.config.citation import Paper
from fadrm_hf.methods.method import Method, Settings

PAPER = Paper(
    title="Deep Learning on a Data Diet: Finding Important Examples Early in Training",
    arxiv="2107.07075",
    bibtex="""\
@inproceedings{paul2021deep,
  title = {Deep Learning on a Data Diet: Finding Important Examples Early in Training},
  author = {Paul, Mansheej and Ganguli, Surya and Dziugaite, Gintare Karolina},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2021},
}
""",
)


@dataclass(frozen=True)
class EL2N(Method):
    """Whole training images with the lowest EL2N of their class, left as they are."""

    name = "el2n"
    title = "EL2N-easy"
    paper = PAPER
    init = "el2n"

    @classmethod
    def published(cls, dataset: str | None, size: int, ipc: int) -> Settings:
        """Return the hard labels that the benchmark trains with."""
        return super().published(dataset, size, ipc) | {"student": {"name": "coreset"}}
