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

    info = ImageNetInfo("imagenet22k")
    known = set(info.label_names())
    return [info.label_name_to_description(name) if name in known else name for name in names]
