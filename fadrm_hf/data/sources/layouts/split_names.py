"""Names of splits, as people write them: `train`, `Training`, `trainset`, `val`, `dev`, `Testing`, `eval`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["train", "validation", "test"]

_WORDS: dict[Kind, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "validate", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
_NEUTRAL = ("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures", "photo",
            "photos", "pics", "folder", "dir", "split", "part", "seg", "files", "samples")  # fmt: skip
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words}
_GLUED = re.compile(rf"({'|'.join(sorted(_KINDS, key=len, reverse=True))})({'|'.join(_NEUTRAL)})")
_TOKENS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


@dataclass(frozen=True)
class SplitName:
    """What the name of a folder, file or value says about a split.

    Attributes:
        kind: Which of the three kinds it names.
        is_exact: Whether it says nothing else: `Training_set` does not, `kaggle_test` and `test_tube` do.
    """

    kind: Kind
    is_exact: bool


def read_split_name(name: str) -> SplitName | None:
    """Return what a name says about a split, or `None` where it contains no word for one."""
    tokens = [token.casefold() for token in _TOKENS.findall(name)]
    words = [part for token in tokens for part in _parts(token)]
    kinds = list(dict.fromkeys(_KINDS[word] for word in words if word in _KINDS))
    if not kinds:
        return None
    said_more = [word for word in words if word not in _KINDS and word not in _NEUTRAL and not word.isdigit()]
    return SplitName(kinds[0], len(kinds) == 1 and not said_more)


def without_split(name: str) -> str:
    """Return a name without its words for splits: `bus` for `train_bus`."""
    tokens = [token.casefold() for token in _TOKENS.findall(name)]
    return " ".join(part for token in tokens for part in _parts(token) if part not in _KINDS)


def _parts(token: str) -> tuple[str, ...]:
    """Return `train` and `set` for `trainset`."""
    glued = _GLUED.fullmatch(token)
    return (glued[1], glued[2]) if glued else (token,)


def is_split_name(name: str) -> bool:
    """Return whether a name means a split and nothing else."""
    said = read_split_name(name)
    return said is not None and said.is_exact


def is_general_name(name: str) -> bool:
    """Return whether a name is a split's, or says no more than that there are images in it."""
    words = [part for token in _TOKENS.findall(name) for part in _parts(token.casefold())]
    return is_split_name(name) or (bool(words) and all(word in _NEUTRAL for word in words))


def find_split(wanted: str, names: Iterable[str]) -> str | None:
    """Return the split that is meant by `wanted`: the one of that name, or the only one of its kind.

    So `validation` finds a folder `val`, and what one release called `test` is found where it is called `Testing`.
    """
    known = list(names)
    if wanted in known:
        return wanted
    said = read_split_name(wanted)
    if said is None or not said.is_exact:
        return None
    same = [name for name in known if (other := read_split_name(name)) and other.is_exact and other.kind == said.kind]
    return same[0] if len(same) == 1 else None
