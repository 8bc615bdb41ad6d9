"""The words of WordNet for classes that are called by their WNIDs, as ImageNet's folders are."""

import re
from collections.abc import Sequence

_WNID = re.compile(r"n\d{8}")


def is_wnid(name: str) -> bool:
    """Return whether a name has the form of a WNID, e.g. n01440764."""
    return _WNID.fullmatch(name) is not None


def in_words(names: Sequence[str]) -> list[str]:
    """Return the words for each WNID among some names, synonyms separated by commas; all else stays as it is."""
    if not any(map(is_wnid, names)):
        return list(names)
    from timm.data.imagenet_info import ImageNetInfo  # it imports torch, which other names need not wait for

    words = ImageNetInfo("imagenet22k").label_descriptions(as_dict=True)
    return [words.get(name, name) for name in names]
