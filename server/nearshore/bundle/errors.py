"""What can be wrong with a bundle."""

from __future__ import annotations

from pathlib import Path

from nearshore.errors import CorruptionError, NotFoundError, UnavailableError
from nearshore.model_names import KNOWN_MODELS


class CorruptBundleError(CorruptionError):
    """A bundle is not what its exporter wrote."""

    reason = "BUNDLE_CORRUPT"

    def __init__(self, folder: Path, detail: str, remedy: str = "") -> None:
        """folder: of the bundle; detail: a clause that names the file and what is wrong with it."""
        self.detail = detail
        super().__init__(
            f"The model bundle {folder} cannot be used: {detail}.",
            remedy
            or f"Make it again: nearshore model get {folder.name} --force (and --from FOLDER if it was made of one). "
            "It gets what it had, a graph in 8 bits and further outputs included, as far as it still tells.",
            bundle=folder,
        )


class BundleUnreadableError(UnavailableError):
    """A bundle may not be read by the user that runs nearshore."""

    reason = "BUNDLE_UNREADABLE"

    def __init__(self, folder: Path, name: str, detail: str) -> None:
        """folder: of the bundle; name: of the file; detail: what the system said."""
        super().__init__(
            f"The model bundle {folder} cannot be used: {name} cannot be read ({detail}).",
            "Let the user that runs nearshore read the model folder, what is in it and what it is in.",
            bundle=folder,
        )


class BundleExchangedError(UnavailableError):
    """A bundle was made anew every time that it was being loaded."""

    reason = "BUNDLE_EXCHANGED"

    def __init__(self, folder: Path) -> None:
        """folder: of the bundle."""
        super().__init__(
            f"The model bundle {folder} was exchanged for another each time that it was being loaded.",
            "See what writes it: wait until each `nearshore model get` has ended, then start again.",
            bundle=folder,
        )


class ModelNotFoundError(NotFoundError):
    """No bundle of that name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, folder: Path) -> None:
        """folder: where the bundle should be."""
        known, get = ", ".join(KNOWN_MODELS), f"nearshore model get {folder.name}"
        remedy = f"Get it with: {get}"
        if folder.name not in KNOWN_MODELS:
            remedy += f" --from FOLDER, which holds its checkpoint; by itself nearshore fetches {known} only. "
            remedy += "`nearshore model list` shows the bundles that there are."
        super().__init__(f"There is no model bundle at {folder}.", remedy, model=folder.name)


class PrecisionMissingError(NotFoundError):
    """A bundle has no graph of this precision."""

    reason = "PRECISION_NOT_FOUND"

    def __init__(self, folder: Path, precision: str) -> None:
        """folder: of the bundle."""
        super().__init__(
            f"The model bundle {folder} has no {precision} graph.",
            f"Make it with: nearshore model get {folder.name} --{precision} (and --from FOLDER if it was made of one); "
            "or set embedding.precision to fp32.",
            model=folder.name,
        )
