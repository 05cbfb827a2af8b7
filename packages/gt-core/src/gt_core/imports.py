"""A user's own functions, named on the command line as `package.module:name`."""

import importlib
import sys
from pathlib import Path

from gt_core.errors import InputError

__all__ = ["import_named"]


def import_named(name: str) -> object:
    """What `package.module:name` stands for.

    Modules of the working directory are found too, after those that are installed: a file there cannot take the place
    of a library.

    Raises:
        InputError: if the name has another form, its module cannot be imported, or the module does not hold it.
    """
    module_name, _, attribute = name.partition(":")
    if not (module_name and attribute):
        raise InputError(f"expected package.module:name, got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise InputError(
            f"{name} cannot be imported: {error}; install it, or run in the folder that holds it"
        ) from error
    if not hasattr(module, attribute):
        held = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        listed = ", ".join(held) or "no functions"
        raise InputError(f"{name} cannot be imported: {module_name} has no {attribute!r}; it has {listed}")
    found: object = getattr(module, attribute)
    return found
