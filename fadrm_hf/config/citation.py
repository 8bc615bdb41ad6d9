"""Papers as data, kept by the methods that they describe, recorded in manifests, cited by cards."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A publication.

    Args:
        title: As printed.
        arxiv: Its arXiv id, e.g. "2506.24125".
        bibtex: The entry to cite.
    """

    title: str
    arxiv: str
    bibtex: str

    @property
    def url(self) -> str:
        """Return the address to read it at."""
        return f"https://arxiv.org/abs/{self.arxiv}"
