"""A bundle's folder on disk: written by the exporter, verified before anything in it is used."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from nearshore.bundle.dense import DENSE_FILE, DenseLayer, read_dense
from nearshore.bundle.errors import BundleUnreadableError, CorruptBundleError, ModelNotFoundError, PrecisionMissingError
from nearshore.bundle.files import NotRegularFileError, file_digest, read_file
from nearshore.bundle.golden import GOLDEN_FILE, Golden, GoldenPairs, read_golden, read_golden_pairs
from nearshore.bundle.manifest import Manifest, Precision, SpecialTokens, content_digest, fingerprint
from nearshore.errors import OUT_OF_HANDLES, NearshoreError, OutOfHandlesError

FORMAT_VERSION: Final = 1
MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
TOKENIZER_FILE = "tokenizer.json"
MANIFEST_FILE = "bundle.json"
_BESIDE = ".data"  # behind the name of a graph: the file with its weights, where they do not fit into it
_GRAPHS = (MODEL_FILE, INT8_FILE)
BUNDLE_FILES: Final = frozenset(
    {*_GRAPHS, *(name + _BESIDE for name in _GRAPHS), TOKENIZER_FILE, GOLDEN_FILE, DENSE_FILE, MANIFEST_FILE}
)
"""All that a bundle may consist of."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle on disk."""

    path: Path
    manifest: Manifest
    precision: Precision = Precision.FP32  # that it is used in

    @property
    def model_path(self) -> Path:
        """The ONNX graph."""
        return self.path / (MODEL_FILE if self.precision is Precision.FP32 else INT8_FILE)

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer; the reader sets truncation and padding."""
        return self.path / TOKENIZER_FILE

    @property
    def size_bytes(self) -> int:
        """Of the files that are loaded: graph with weights, tokenizer and dense layers. Raises CorruptBundleError."""
        try:
            return sum((self.path / name).stat().st_size for name in _read_files(self.manifest, [self.model_path.name]))
        except OSError as error:
            raise CorruptBundleError(self.path, f"{error.filename} cannot be read ({error.strerror})") from error

    @property
    def has_golden(self) -> bool:
        """Whether golden vectors exist: false only while an export computes them."""
        return GOLDEN_FILE in self.manifest.files

    @property
    def fingerprints(self) -> dict[Precision, str]:
        """What its vectors mean, in each precision that it has a graph of."""
        special = self.manifest.special_tokens
        precisions = (Precision.FP32, Precision.INT8) if self.manifest.int8 else (Precision.FP32,)
        return {each: self.at(each).fingerprint_for(special) for each in precisions}

    def at(self, precision: Precision) -> Bundle:
        """The bundle, used in this precision; a cross-encoder is used in fp32 always. Raises PrecisionMissingError."""
        if self.manifest.is_cross_encoder:
            precision = Precision.FP32
        if precision is Precision.INT8 and self.manifest.int8 is None:
            raise PrecisionMissingError(self.path, precision)
        return replace(self, precision=precision)

    def dense(self) -> tuple[DenseLayer, ...]:
        """Read the layers behind pooling; none where there are none. Raises CorruptBundleError."""
        manifest = self.manifest
        if not manifest.dense:
            return ()
        return read_dense(self.path, manifest.dense, len(manifest.pooling) * manifest.network.hidden_size)

    def golden(self) -> Golden:
        """Read the golden texts and the vectors of this precision. Raises CorruptBundleError."""
        return read_golden(self.path, self.precision, self.manifest.dimensions)

    def golden_pairs(self) -> GoldenPairs:
        """Read the golden pairs of a cross-encoder and their logits. Raises CorruptBundleError."""
        return read_golden_pairs(self.path)

    def token_fingerprint(self, special_tokens: SpecialTokens) -> str:
        """The fingerprint of the vectors of tokens in this special-token mode: not that of any vector of a text."""
        return fingerprint(
            self.manifest,
            special_tokens=special_tokens,
            precision=self.precision,
            normalize=False,
            pooled=False,
        )

    def fingerprint_for(
        self, special_tokens: SpecialTokens, *, dimensions: int | None = None, normalize: bool | None = None
    ) -> str:
        """The fingerprint of vectors made with this special-token mode; the rest is as for fingerprint()."""
        return fingerprint(
            self.manifest,
            special_tokens=special_tokens,
            precision=self.precision,
            dimensions=dimensions,
            normalize=normalize,
        )


def weights_beside(graph: Path) -> Path:
    """Where the weights of a graph lie that does not hold them itself."""
    return graph.with_name(graph.name + _BESIDE)


def _read_files(manifest: Manifest, graphs: list[str]) -> list[str]:
    """The files that are read to serve from these graphs."""
    beside = [name + _BESIDE for name in graphs if name + _BESIDE in manifest.files]
    return [*graphs, *beside, TOKENIZER_FILE, *([DENSE_FILE] if manifest.dense else [])]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write bundle.json, readable, with the fingerprint and a digest of all it says."""
    content = manifest.model_dump(mode="json")
    for name in ("int8", "dense", "default_prompt", "classifier"):
        if not content[name]:
            del content[name]  # as in bundles from before there was such a thing
    if "int8" in content and not content["int8"]["inputs"]:
        del content["int8"]["inputs"]
    content["fingerprint"] = manifest.fingerprint
    content["digest"] = content_digest(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def load_bundle(path: Path, precision: Precision | None = None) -> Bundle:
    """Open a bundle and verify its files (0.2 s for 90 MB).

    precision: that it is used in, and then the graph of the other one is not looked at; None: fp32, and verify all.
    Raises ModelNotFoundError when there is no such folder, CorruptBundleError when a file has changed, and
    PrecisionMissingError.
    """
    manifest = read_manifest(path)
    bundle = Bundle(path, manifest).at(precision or Precision.FP32)
    graphs = [bundle.model_path.name] if precision else [MODEL_FILE, *([INT8_FILE] if manifest.int8 else [])]
    wanted = [*_read_files(manifest, graphs), GOLDEN_FILE]
    missing = [name for name in wanted if name not in manifest.files]
    if missing:
        raise CorruptBundleError(path, f"{MANIFEST_FILE} does not list {missing[0]}")
    for name in wanted:
        try:
            found = file_digest(path / name)
        except OSError as error:
            raise _unreadable(path, name, error) from error
        if found != manifest.files[name]:
            raise CorruptBundleError(path, f"{name} has changed since the export (SHA-256 {found[:12]}...)")
    return bundle


def read_manifest(path: Path) -> Manifest:
    """What a bundle says it is, whatever has become of its other files.

    Raises ModelNotFoundError when there is no such folder, CorruptBundleError when bundle.json cannot be used,
    BundleUnreadableError and OutOfHandlesError.
    """
    try:
        if not path.is_dir():
            raise ModelNotFoundError(path)
        content = json.loads(read_file(path / MANIFEST_FILE).decode("utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            version = content["format_version"]
            raise CorruptBundleError(path, f"it has format {version!r}, this nearshore reads {FORMAT_VERSION}")
        digest = content.pop("digest")
        if digest != content_digest(content):
            raise CorruptBundleError(path, f"{MANIFEST_FILE} has changed since the export")
        stated = content.pop("fingerprint")
        manifest = Manifest.model_validate(content)
    except FileNotFoundError as error:
        if not path.is_dir():  # between the two renames of an exchange
            raise ModelNotFoundError(path) from error
        remedy = (  # as an export does, forced or not: what lies there may be somebody's only weights
            "It is never replaced, for it may be somebody's: move it out of the model folder, then make the bundle "
            f"with nearshore model get {path.name} (and --from FOLDER if it is made of one)."
        )
        raise CorruptBundleError(path, f"it has no {MANIFEST_FILE}, so it is no bundle", remedy) from error
    except OSError as error:
        raise _unreadable(path, MANIFEST_FILE, error) from error
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptBundleError(path, f"{MANIFEST_FILE} is not a bundle manifest ({_first_line(error)})") from error
    if stated != manifest.fingerprint:
        raise CorruptBundleError(path, f"its fingerprint {stated} is not that of its fields, {manifest.fingerprint}")
    return manifest


def _unreadable(path: Path, name: str, error: OSError) -> NearshoreError:
    if error.errno in OUT_OF_HANDLES:
        return OutOfHandlesError(f"reading {name} of the model bundle {path}")
    if isinstance(error, PermissionError):
        return BundleUnreadableError(path, name, str(error.strerror))
    if isinstance(error, NotRegularFileError):
        remedy = (  # an export would not delete what it did not write
            f"Put the file itself there, or a link to it; or move the folder {path.name} out of the model folder and "
            f"make the bundle with nearshore model get {path.name} (and --from FOLDER if it was made of one)."
        )
        return CorruptBundleError(path, f"{name} is not a regular file", remedy)
    return CorruptBundleError(path, f"{name} cannot be read ({error.strerror})")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def bundle_names(model_dir: Path) -> list[str]:
    """Names of the bundles in a folder, sorted, unverified; empty when there is no such folder."""
    return sorted(path.parent.name for path in model_dir.glob(f"[!.]*/{MANIFEST_FILE}"))


def list_bundles(model_dir: Path) -> list[Bundle]:
    """Open every bundle in a folder, by name. Raises CorruptBundleError for the first that does not verify."""
    return [load_bundle(model_dir / name) for name in bundle_names(model_dir)]
