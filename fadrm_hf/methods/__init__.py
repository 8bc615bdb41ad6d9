"""One file per published method, each a composition of the shared parts. README.md is the paper index."""

from collections.abc import Iterable

from fadrm_hf.config.citation import Paper
from fadrm_hf.errors import ConfigError, unknown
from fadrm_hf.methods.cda import CDA
from fadrm_hf.methods.cv_dd import CVDD
from fadrm_hf.methods.delt import DELT
from fadrm_hf.methods.edc import EDC
from fadrm_hf.methods.el2n import EL2N
from fadrm_hf.methods.fadrm import FADRM
from fadrm_hf.methods.fadrm_plus import FADRMPlus
from fadrm_hf.methods.g_vbsm import GVBSM
from fadrm_hf.methods.lpld import LPLD
from fadrm_hf.methods.method import Method
from fadrm_hf.methods.own import installed_methods, methods_in
from fadrm_hf.methods.pca import PCA
from fadrm_hf.methods.psm import PSM
from fadrm_hf.methods.random_real import RandomReal
from fadrm_hf.methods.rded import RDED
from fadrm_hf.methods.sre2l import SRe2L
from fadrm_hf.methods.sre2l_pp import SRe2LPlusPlus

_CATALOGUE: tuple[type[Method], ...] = (
    RandomReal,
    EL2N,
    PCA,
    RDED,
    SRe2L,
    CDA,
    LPLD,
    DELT,
    SRe2LPlusPlus,
    GVBSM,
    CVDD,
    EDC,
    FADRM,
    FADRMPlus,
    PSM,
)
METHODS: dict[str, type[Method]] = {method.name: method for method in _CATALOGUE}


def find_method(name: str, option: str = "--method") -> type[Method]:
    """Return the settings class of a method: of this catalogue, of a package that offers one, or of `--import`.

    Raises:
        ConfigError: If no method has that name; the nearest names are given.
    """
    if name not in METHODS:
        METHODS.update({method.name: method for method in installed_methods()})
    if name not in METHODS:
        raise ConfigError(
            f"{unknown('method', name, METHODS)}; set {option}, and --import FILE.py for one of your own"
        )
    return METHODS[name]


def import_methods(names: Iterable[str]) -> None:
    """Make methods of one's own known: those that Python files or modules define.

    Raises:
        ConfigError: If one of them cannot be imported, or defines a method with another one's name.
    """
    for method in (method for name in names for method in methods_in(name)):
        held = METHODS.setdefault(method.name, method)
        if held.__module__ != method.__module__:
            raise ConfigError(f"method {method.name} of {method.__module__} has the name of another one; rename it")


def title_of(name: str) -> str:
    """Return a method's name as papers spell it; for a method that is not known here, its name in capitals."""
    return METHODS[name].title if name in METHODS else name.upper()


def paper_of(name: str) -> Paper | None:
    """Return the paper to cite for a method; `None` for one that has none, or is not known here."""
    return METHODS[name].paper if name in METHODS else None
