"""The format of a model bundle, the folder that serving reads. A leaf: knows errors, records and networks only.

    NAME/model.onnx      the network, float32
    NAME/model.int8.onnx where one was asked for: the same with products in 8 bits
    NAME/tokenizer.json  Hugging Face tokenizer, with neither truncation nor padding: both come from bundle.json
    NAME/golden.npz      awkward texts and the vectors that the exporting machine gave for them
    NAME/bundle.json     the manifest: what a vector means, and a digest of every file; written last

Two kinds of digest. File digests find corruption. The fingerprint says what a vector means: it is the same for two
bundles exactly when their vectors may be compared, whichever exporter wrote them and whatever their bytes.
"""

from __future__ import annotations

import enum
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nearshore.errors import CorruptionError, NotFoundError
from nearshore.network import Architecture, Network
from nearshore.records import F32

FORMAT_VERSION: Final = 1
MODEL_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
TOKENIZER_FILE = "tokenizer.json"
GOLDEN_FILE = "golden.npz"
MANIFEST_FILE = "bundle.json"
_FILES = (MODEL_FILE, TOKENIZER_FILE, GOLDEN_FILE)
_FINGERPRINT_SCHEME = "nsf1"


class CorruptBundleError(CorruptionError):
    """A bundle is not what its exporter wrote."""

    reason = "BUNDLE_CORRUPT"

    def __init__(self, folder: Path, detail: str) -> None:
        """folder: of the bundle; detail: a clause that names the file and what is wrong with it."""
        super().__init__(
            f"The model bundle {folder} cannot be used: {detail}.",
            f"Delete the folder and make it again: nearshore model get {folder.name}",
            bundle=folder,
        )


class ModelNotFoundError(NotFoundError):
    """No bundle of that name."""

    reason = "MODEL_NOT_FOUND"

    def __init__(self, folder: Path) -> None:
        """folder: where the bundle should be."""
        super().__init__(
            f"There is no model bundle at {folder}.",
            f"Get it with: nearshore model get {folder.name}",
            model=folder.name,
        )


class PrecisionMissingError(NotFoundError):
    """A bundle has no graph of this precision."""

    reason = "PRECISION_NOT_FOUND"

    def __init__(self, folder: Path, precision: str) -> None:
        """folder: of the bundle."""
        super().__init__(
            f"The model bundle {folder} has no {precision} graph.",
            f"Make it with: nearshore model get {folder.name} --{precision}; or set embedding.precision to fp32.",
            model=folder.name,
        )


class Precision(enum.StrEnum):
    """In what the products of a network are computed."""

    FP32 = "fp32"
    INT8 = "int8"


class SpecialTokens(enum.StrEnum):
    """What becomes of text that spells a special token such as [SEP]."""

    TEXT = "text"  # it is text like any other
    PARSE = "parse"  # it becomes the special token, as in transformers


class Pooling(enum.StrEnum):
    """How the vectors of a text's tokens become one."""

    MEAN = "mean"  # average of all tokens, special ones included
    CLS = "cls"  # the first token's


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Frozen):
    """Where the checkpoint came from."""

    kind: Literal["hub", "pypi", "folder"]
    location: str  # repository, distribution or folder name
    revision: str  # commit or version; empty for a folder
    sha256: str  # of model.safetensors; of the names and digests of all files where there are several


class Trial(_Frozen):
    """A recipe for 8 bits and how near its vectors came to those in float32, over texts it was not made with."""

    recipe: str
    mean_cosine: float
    least_cosine: float


class Int8(_Frozen):
    """Of a bundle that has a graph with products in 8 bits."""

    recipe: str  # how they are made; part of what a vector means
    trials: tuple[Trial, ...]  # from the fastest recipe to the one that was kept


class Manifest(_Frozen):
    """bundle.json, less the two digests that derive from the rest."""

    format_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    architecture: Architecture
    network: Network
    dimensions: int = Field(ge=1)
    max_tokens: int = Field(ge=2)  # special tokens included
    truncation_side: Literal["right"]
    pooling: Pooling
    normalize: bool
    prompts: dict[str, str]
    special_tokens: SpecialTokens
    precision: Literal["fp32"]
    recipe: str  # how the numbers were changed on the way from the checkpoint; "none" for fp32
    tokenizer_sha256: str  # of the tokenizer's content, see content_digest()
    source: Source
    license: str  # SPDX-like, as the checkpoint declares it; "unknown" when it does not
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    exporter: str
    files: dict[str, str]  # name: sha256
    int8: Int8 | None = None

    @property
    def fingerprint(self) -> str:
        """What a vector of this bundle means in float32, with the bundle's own special-token mode."""
        return fingerprint(self, special_tokens=self.special_tokens)


_GOLDEN_VECTORS = {Precision.FP32: "vectors", Precision.INT8: "vectors_int8"}  # arrays of golden.npz


@dataclass(frozen=True, slots=True)
class Golden:
    """Texts and the vectors that a replica must reproduce before it serves."""

    texts: tuple[str, ...]
    vectors: F32  # (texts, dimensions)


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
    def has_golden(self) -> bool:
        """Whether golden vectors exist: false only while an export computes them."""
        return GOLDEN_FILE in self.manifest.files

    def at(self, precision: Precision) -> Bundle:
        """The bundle, used in this precision. Raises PrecisionMissingError."""
        if precision is Precision.INT8 and self.manifest.int8 is None:
            raise PrecisionMissingError(self.path, precision)
        return replace(self, precision=precision)

    def golden(self) -> Golden:
        """Read the golden texts and the vectors of this precision. Raises CorruptBundleError."""
        wanted = _GOLDEN_VECTORS[self.precision]
        try:
            with np.load(self.path / GOLDEN_FILE, allow_pickle=False) as arrays:
                texts, vectors = arrays["texts"], np.ascontiguousarray(arrays[wanted], dtype=np.float32)
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptBundleError(self.path, f"{GOLDEN_FILE} cannot be read ({error})") from error
        if not len(texts) or vectors.shape != (len(texts), self.manifest.dimensions):
            raise CorruptBundleError(self.path, f"{GOLDEN_FILE} has vectors of shape {vectors.shape}")
        return Golden(tuple(texts.tolist()), vectors)

    def fingerprint_for(self, special_tokens: SpecialTokens) -> str:
        """The fingerprint of vectors made with this special-token mode."""
        return fingerprint(self.manifest, special_tokens=special_tokens, precision=self.precision)


def fingerprint(manifest: Manifest, *, special_tokens: SpecialTokens, precision: Precision = Precision.FP32) -> str:
    """What a vector means, as "nsf1-" and 32 hexadecimal digits.

    Covers all that moves a vector (the checkpoint and how it is run, the tokenizer, pooling, prompts, truncation,
    normalization, precision), and nothing that does not (name, origin, exporter, file bytes).
    """
    recipe = manifest.recipe if precision is Precision.FP32 or manifest.int8 is None else manifest.int8.recipe
    meaning = {
        "architecture": manifest.architecture,
        "network": manifest.network.model_dump(mode="json"),
        "checkpoint": manifest.source.sha256,
        "tokenizer": manifest.tokenizer_sha256,
        "special_tokens": special_tokens.value,
        "pooling": manifest.pooling.value,
        "prompts": manifest.prompts,
        "max_tokens": manifest.max_tokens,
        "truncation_side": manifest.truncation_side,
        "normalize": manifest.normalize,
        "precision": precision.value,
        "recipe": recipe,
    }
    return f"{_FINGERPRINT_SCHEME}-{content_digest(meaning)[:32]}"


def content_digest(content: Any) -> str:
    """SHA-256, in hexadecimal, of a JSON value in one canonical form: two spellings of one value agree."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_golden(folder: Path, texts: list[str], vectors: Mapping[Precision, F32]) -> None:
    """Write golden.npz: vectors (texts, dimensions) float32, of every precision that the bundle has."""
    arrays: dict[str, Any] = {_GOLDEN_VECTORS[precision]: each for precision, each in vectors.items()}
    np.savez_compressed(folder / GOLDEN_FILE, texts=np.array(texts), **arrays)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write bundle.json, readable, with the fingerprint and a digest of all it says."""
    content = manifest.model_dump(mode="json")
    if manifest.int8 is None:
        del content["int8"]  # as in bundles from before there was such a thing
    content["fingerprint"] = manifest.fingerprint
    content["digest"] = content_digest(content)
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def load_bundle(path: Path) -> Bundle:
    """Open a bundle and verify every file of it (0.1 s for 90 MB).

    Raises ModelNotFoundError when there is no such folder, CorruptBundleError when anything in it has changed.
    """
    if not path.is_dir():
        raise ModelNotFoundError(path)
    manifest = _read_manifest(path)
    wanted = (*_FILES, *([INT8_FILE] if manifest.int8 else []))
    missing = [name for name in wanted if name not in manifest.files]
    if missing:
        raise CorruptBundleError(path, f"{MANIFEST_FILE} does not list {missing[0]}")
    for name in wanted:
        try:
            found = file_digest(path / name)
        except OSError as error:
            raise CorruptBundleError(path, f"{name} cannot be read ({error.strerror})") from error
        if found != manifest.files[name]:
            raise CorruptBundleError(path, f"{name} has changed since the export (SHA-256 {found[:12]}...)")
    return Bundle(path, manifest)


def _read_manifest(path: Path) -> Manifest:
    try:
        content = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
        if content["format_version"] != FORMAT_VERSION:
            version = content["format_version"]
            raise CorruptBundleError(path, f"it has format {version!r}, this nearshore reads {FORMAT_VERSION}")
        digest = content.pop("digest")
        if digest != content_digest(content):
            raise CorruptBundleError(path, f"{MANIFEST_FILE} has changed since the export")
        stated = content.pop("fingerprint")
        manifest = Manifest.model_validate(content)
    except OSError as error:
        raise CorruptBundleError(path, f"{MANIFEST_FILE} cannot be read ({error.strerror})") from error
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptBundleError(path, f"{MANIFEST_FILE} is not a bundle manifest ({_first_line(error)})") from error
    if stated != manifest.fingerprint:
        raise CorruptBundleError(path, f"its fingerprint {stated} is not that of its fields, {manifest.fingerprint}")
    return manifest


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def bundle_names(model_dir: Path) -> list[str]:
    """Names of the bundles in a folder, sorted, unverified; empty when there is no such folder."""
    return sorted(path.parent.name for path in model_dir.glob(f"[!.]*/{MANIFEST_FILE}"))


def list_bundles(model_dir: Path) -> list[Bundle]:
    """Open every bundle in a folder, by name. Raises CorruptBundleError for the first that does not verify."""
    return [load_bundle(model_dir / name) for name in bundle_names(model_dir)]
