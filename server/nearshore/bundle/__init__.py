"""The format of a model bundle, the folder that serving reads. A leaf: knows errors, records and networks only.

NAME/model.onnx      the network, float32
NAME/model.int8.onnx where one was asked for: the same with products in 8 bits
NAME/model.onnx.data, model.int8.onnx.data   where a graph's file cannot hold its weights (2 GiB): these, by offset
NAME/dense.npz       where there are any: the layers behind pooling
NAME/tokenizer.json  Hugging Face tokenizer, with neither truncation nor padding: both come from bundle.json
NAME/golden.npz      awkward texts, or pairs of them, and what the exporting machine gave for them
NAME/bundle.json     the manifest: what a vector means, and a digest of every file; written last
"""

from nearshore.bundle.dense import DENSE_FILE as DENSE_FILE
from nearshore.bundle.dense import DenseLayer as DenseLayer
from nearshore.bundle.dense import write_dense as write_dense
from nearshore.bundle.errors import BundleExchangedError as BundleExchangedError
from nearshore.bundle.errors import BundleUnreadableError as BundleUnreadableError
from nearshore.bundle.errors import CorruptBundleError as CorruptBundleError
from nearshore.bundle.errors import ModelNotFoundError as ModelNotFoundError
from nearshore.bundle.errors import PrecisionMissingError as PrecisionMissingError
from nearshore.bundle.files import file_digest as file_digest
from nearshore.bundle.files import read_file as read_file
from nearshore.bundle.folder import BUNDLE_FILES as BUNDLE_FILES
from nearshore.bundle.folder import FORMAT_VERSION as FORMAT_VERSION
from nearshore.bundle.folder import INT8_FILE as INT8_FILE
from nearshore.bundle.folder import MANIFEST_FILE as MANIFEST_FILE
from nearshore.bundle.folder import MODEL_FILE as MODEL_FILE
from nearshore.bundle.folder import TOKENIZER_FILE as TOKENIZER_FILE
from nearshore.bundle.folder import Bundle as Bundle
from nearshore.bundle.folder import bundle_names as bundle_names
from nearshore.bundle.folder import list_bundles as list_bundles
from nearshore.bundle.folder import load_bundle as load_bundle
from nearshore.bundle.folder import read_manifest as read_manifest
from nearshore.bundle.folder import weights_beside as weights_beside
from nearshore.bundle.folder import write_manifest as write_manifest
from nearshore.bundle.golden import GOLDEN_FILE as GOLDEN_FILE
from nearshore.bundle.golden import Golden as Golden
from nearshore.bundle.golden import GoldenPairs as GoldenPairs
from nearshore.bundle.golden import cosines as cosines
from nearshore.bundle.golden import write_golden as write_golden
from nearshore.bundle.manifest import DOCUMENT_PROMPTS as DOCUMENT_PROMPTS
from nearshore.bundle.manifest import QUERY_PROMPTS as QUERY_PROMPTS
from nearshore.bundle.manifest import Classifier as Classifier
from nearshore.bundle.manifest import Dense as Dense
from nearshore.bundle.manifest import DenseActivation as DenseActivation
from nearshore.bundle.manifest import Int8 as Int8
from nearshore.bundle.manifest import Manifest as Manifest
from nearshore.bundle.manifest import Pooling as Pooling
from nearshore.bundle.manifest import Precision as Precision
from nearshore.bundle.manifest import ScoreActivation as ScoreActivation
from nearshore.bundle.manifest import Source as Source
from nearshore.bundle.manifest import SpecialTokens as SpecialTokens
from nearshore.bundle.manifest import Trial as Trial
from nearshore.bundle.manifest import content_digest as content_digest
from nearshore.bundle.manifest import fingerprint as fingerprint
