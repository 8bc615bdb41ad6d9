"""Methods of one's own: a Python file or a module that is named on the command line, or an installed entry point.

    fadrm-hf distill --import my_method.py --method late_residual --source.name digits

Only what the user names is executed, never what a file or an artifact names.
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from fadrm_hf.errors import ConfigError
from fadrm_hf.methods.method import Method

ENTRY_POINTS = "fadrm_hf.methods"  # NAME = "module:Class"


def methods_in(name: str) -> list[type[Method]]:
    """Import a file or a module and return the methods that are defined in it.

    Args:
        name: Path of a Python file, or a module's name.

    Raises:
        ConfigError: If it cannot be found or imported, or defines no method.
    """
    module = _import_file(Path(name)) if name.endswith(".py") else _import_module(name)
    found = [kind for kind in vars(module).values() if _is_method(kind) and kind.__module__ == module.__name__]
    if not found:
        raise ConfigError(
            f"--import {name} defines no method, expected a class Method with a name; see docs/new_method.md"
        )
    return found


def installed_methods() -> list[type[Method]]:
    """Return the methods that installed packages offer by an entry point, by the name of their distribution."""
    return [kind for point in entry_points(group=ENTRY_POINTS) if _is_method(kind := point.load())]


def place_of(method: type[Method]) -> str | None:
    """Return the file or module by which another process knows a method; `None` for one of a notebook or a script."""
    module = sys.modules.get(method.__module__)
    if method.__module__ == "__main__" or not getattr(module, "__file__", None):
        return None
    return method.__module__ if "." in method.__module__ else str(module.__file__)  # type: ignore[union-attr]


def code_of(method: type[Method]) -> str | None:
    """Return the SHA-256 of the code of a method of one's own, by which a run knows that it has changed.

    It is that of the class and of what the class names in the same file, without comments and layout.

    Returns:
        `None` for a method of this library, whose version artifacts record, and where there is no code to read.
    """
    if method.__module__.startswith(f"{__package__}."):
        return None
    around, seen, waiting = vars(sys.modules[method.__module__]), {}, [method.__name__]
    try:
        while waiting:
            part = method if (name := waiting.pop()) == method.__name__ else around.get(name)
            if name not in seen and getattr(part, "__module__", None) == method.__module__:
                tree = ast.parse(textwrap.dedent(inspect.getsource(part)))  # type: ignore[arg-type]
                seen[name] = ast.unparse(tree)
                waiting += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    except (OSError, TypeError, SyntaxError):
        return None
    return hashlib.sha256("\n".join(map(seen.__getitem__, sorted(seen))).encode()).hexdigest()


def _is_method(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Method) and isinstance(getattr(kind, "name", None), str)


def _import_file(path: Path) -> ModuleType:
    """Execute a file as the module of its name, once."""
    path = path.resolve()
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ConfigError(f"--import {path} is no file, expected a Python file with a method")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # before it runs: dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[path.stem]
        raise ConfigError(f"--import {path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"--import {name} cannot be imported: {error}; name a module, or a file by its path"
        ) from error
