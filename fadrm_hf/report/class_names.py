"""Names of classes as people read them."""

from fadrm_hf.artifact.manifest import Manifest
from fadrm_hf.artifact.tables import label_names
from fadrm_hf.data.class_map import ClassMap
from fadrm_hf.data.wordnet import in_words


def shown_names(manifest: Manifest) -> list[str]:
    """Return a name for each class, no two equal: of one that is called by its WNID, WordNet's first word for it."""
    ids, names = manifest.classes.ids, manifest.classes.names
    pairs = zip(names, in_words(names), strict=True)
    shown = (name if words == name else words.partition(",")[0] for name, words in pairs)
    return label_names(ClassMap(ids, tuple(shown)))
