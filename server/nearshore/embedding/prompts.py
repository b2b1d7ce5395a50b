"""What a model was trained to see before a text, depending on what the text is for."""

from __future__ import annotations

from nearshore.bundle import DOCUMENT_PROMPTS, QUERY_PROMPTS, Manifest
from nearshore.embedding.errors import UnknownPromptError


class Prompts:
    """The prompts of one model; each is put before a text as it is, and empty where there is none."""

    def __init__(self, manifest: Manifest) -> None:
        """Take them from a bundle."""
        self._model = manifest.name
        self._texts = manifest.prompts
        self._default = self._texts[manifest.default_prompt] if manifest.default_prompt is not None else ""
        self.query = self._first(QUERY_PROMPTS)
        self.document = self._first(DOCUMENT_PROMPTS)

    def named(self, name: str | None) -> str:
        """The prompt of this name; None: what the checkpoint puts before texts by itself; "": none at all.

        Raises UnknownPromptError.
        """
        if not name:
            return self._default if name is None else ""
        if name not in self._texts:
            raise UnknownPromptError(self._model, name, sorted(self._texts))
        return self._texts[name]

    def _first(self, names: tuple[str, ...]) -> str:
        return next((self._texts[name] for name in names if name in self._texts), self._default)
