"""Makes the bundle's tokenizer.json: the checkpoint's own, or BERT's from a vocab.txt.

Truncation and padding belong to the bundle and are taken out, and text that spells a special token is seen to be text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from nearshore.bundle import content_digest
from nearshore.export.checkpoint import Checkpoint
from nearshore.export.config import read_json
from nearshore.export.errors import UnusableCheckpointError
from nearshore.export.spelled_tokens import guarded

_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_SPECIAL = {  # BERT's tokens by their roles
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_OTHER_ROLES = ("bos_token", "eos_token", "additional_special_tokens", "extra_special_tokens")
_AS_BERT = {  # settings that change how a vocab.txt is used, and what is done
    "tokenizer_class": (
        None,
        *(f"{name}Tokenizer{fast}" for name in ("Bert", "DistilBert", "Electra") for fast in ("", "Fast")),
    ),
    "do_basic_tokenize": (None, True),
    "strip_accents": (None, True, False),
    "tokenize_chinese_chars": (None, True, False),
}
_NORMALIZER = (  # a setting, its name in tokenizer.json, and what transformers takes where it is not stated
    ("do_lower_case", "lowercase", True),
    ("tokenize_chinese_chars", "handle_chinese_chars", True),
    ("strip_accents", "strip_accents", None),
)
_NORMALIZING = {f"{model}tokenizer" for model in ("bert", "distilbert", "electra", "mpnet")}  # classes of transformers
_PADDED_TOKENS = 128  # tables are padded to multiples of 64 or 128, for speed
_ONE_MODEL = "Use tokenizer or vocabulary and weights of one model."
_BESIDE = f"Put the model's {_FILE} beside it, as transformers saves it."


@dataclass(frozen=True, slots=True)
class PlainTokenizer:
    """A tokenizer that neither truncates nor pads."""

    text: str  # the content of tokenizer.json
    sha256: str  # of its content, whatever its spelling


def read_tokenizer(checkpoint: Checkpoint, *, lower_case: bool | None = None) -> PlainTokenizer:
    """Read or make, free and check the tokenizer.

    lower_case: of a vocab.txt, where the caller knows better than the checkpoint; refused beside a tokenizer.json.
    Raises UnusableCheckpointError.
    """
    folder, vocabulary = checkpoint.folder, _only_vocabulary(checkpoint)
    if vocabulary is not None:
        lower_case = checkpoint.files.lower_case if lower_case is None else lower_case
        content, name = _from_vocabulary(checkpoint, vocabulary, lower_case), vocabulary.name
    else:
        content, name = _from_file(checkpoint, lower_case), _FILE
    content["truncation"] = None
    content["padding"] = None
    try:
        tokenizer: Any = tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # tokenizers raises nothing more precise
        raise UnusableCheckpointError(folder, f"{name} is not a tokenizer ({error})") from error
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    size = checkpoint.configuration.network.vocabulary_size
    if highest >= size:
        raise UnusableCheckpointError(
            folder, f"{name} has token number {highest}, the network only {size} tokens", _ONE_MODEL
        )
    if highest + 1 + _PADDED_TOKENS <= size:
        raise UnusableCheckpointError(
            folder, f"{name} has only {highest + 1} tokens, the network {size}: more than padding explains", _ONE_MODEL
        )
    if len(tokenizer.encode("").ids) != 2:
        detail = f"{name} does not put two special tokens, as [CLS] and [SEP], around a text"
        raise UnusableCheckpointError(folder, detail, _ONE_MODEL)
    content = guarded(content)
    return PlainTokenizer(json.dumps(content, ensure_ascii=False, separators=(",", ":")), content_digest(content))


def kept_case(checkpoint: Checkpoint, made: Path) -> bool | None:
    """The lower_case that a tokenizer.json was made with, where the checkpoint by itself would give the other one.

    None: nothing is to be kept. Raises what read_tokenizer does.
    """
    if _only_vocabulary(checkpoint) is None:
        return None
    known, usual = (_lowercase(text) for text in (made.read_text("utf-8"), read_tokenizer(checkpoint).text))
    return None if known == usual else known


def _lowercase(text: str) -> bool | None:
    normalizer = json.loads(text).get("normalizer") or {}
    return normalizer.get("lowercase") if normalizer.get("type") == "BertNormalizer" else None


def _only_vocabulary(checkpoint: Checkpoint) -> Path | None:
    """The vocab.txt that the tokenizer is made from; None where a tokenizer.json is taken."""
    given = checkpoint.configuration.family.word_pieces and not (checkpoint.folder / _FILE).is_file()
    return checkpoint.files.vocabulary if given else None


def _from_file(checkpoint: Checkpoint, lower_case: bool | None) -> dict[str, Any]:
    content: dict[str, Any] = read_json(checkpoint.folder, _FILE)
    if lower_case is not None:
        raise UnusableCheckpointError(
            checkpoint.folder,
            f"--cased or --lower-case is given, and {_FILE} says itself how texts are cut",
            "Leave out --cased and --lower-case.",
        )
    normalizer = content.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        _refuse_contradiction(checkpoint, normalizer)
    return content


def _refuse_contradiction(checkpoint: Checkpoint, normalizer: Mapping[str, Any]) -> None:
    """Refuse a normalizer that tokenizer_config.json contradicts, for transformers puts another in its place.

    BERT's classes there do so also where tokenizer_config.json is silent, by what they take for granted.
    """
    settings = read_json(checkpoint.folder, _SETTINGS, optional=True)
    config = checkpoint.files.config
    made = settings.get("tokenizer_class") or config.get("tokenizer_class") or f"{config.get('model_type')}Tokenizer"
    grants = str(made).removesuffix("Fast").lower() in _NORMALIZING
    for key, name, default in _NORMALIZER:
        stated, found = settings.get(key), normalizer.get(name)
        if stated is None and not grants:
            continue
        wanted = default if stated is None else stated
        if key == "strip_accents":  # None: where letters are made small, on which both agree by now
            wanted, found = (normalizer.get("lowercase") if value is None else value for value in (wanted, found))
        if wanted != found:
            says = f"has {key} {stated!r}" if stated is not None else f"has no {key}, which is taken for {default}"
            raise UnusableCheckpointError(
                checkpoint.folder,
                f"{_SETTINGS} {says}, and {_FILE} has {name} {normalizer.get(name)!r}",
                f"Use both files of one model. If {_FILE} is right, say the same in {_SETTINGS}.",
            )


def _from_vocabulary(checkpoint: Checkpoint, path: Path, lower_case: bool | None) -> dict[str, Any]:
    """BERT's tokenizer (Devlin et al., 2019), as Hugging Face's BertTokenizer has it.

    A vocabulary with capitals is one of a cased model, which nothing else in a TensorFlow 1 checkpoint tells.
    """
    folder, config = checkpoint.folder, checkpoint.files.config
    settings = read_json(folder, _SETTINGS, optional=True)
    stated = [(_SETTINGS, key, settings.get(key)) for key in _AS_BERT]
    if not settings.get("tokenizer_class"):
        stated.append((config.name, "tokenizer_class", config.get("tokenizer_class")))
    for file, key, value in stated:
        if value not in _AS_BERT[key]:
            detail = f"{path.name} is used with {key} {value!r} ({file}), which is not supported"
            raise UnusableCheckpointError(folder, detail, _BESIDE)
    numbers = _read_words(folder, path)
    _refuse_other_special(folder, path.name)
    _refuse_added(folder, path.name, numbers)
    if lower_case is None:
        lower_case = all(word == word.lower() for word in numbers if not (word.startswith("[") and word.endswith("]")))
    tokenizer: Any = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab=numbers, unk_token=_SPECIAL["unk_token"]))
    tokenizer.add_special_tokens(list(_SPECIAL.values()))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=lower_case,
        strip_accents=settings.get("strip_accents"),  # None: where letters are made small
        handle_chinese_chars=settings.get("tokenize_chinese_chars") is not False,
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    end, start = ((token, numbers[token]) for token in ("[SEP]", "[CLS]"))
    tokenizer.post_processor = tokenizers.processors.BertProcessing(end, start)
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    content: dict[str, Any] = json.loads(tokenizer.to_str())
    return content


def _read_words(folder: Path, path: Path) -> dict[str, int]:
    """Every word of a vocabulary, a line each, and its number."""
    lines = path.read_bytes().decode("utf-8", errors="replace").split("\n")
    words = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    numbers = {word: number for number, word in enumerate(words)}
    missing = next((token for token in _SPECIAL.values() if token not in numbers), None)
    if missing is not None or len(numbers) != len(words):
        detail = f"lacks {missing}" if missing else f"has {len(words) - len(numbers)} words twice"
        raise UnusableCheckpointError(folder, f"{path.name} {detail}", _ONE_MODEL)
    return numbers


def _refuse_other_special(folder: Path, name: str) -> None:
    """Refuse tokens of other names in the roles of BERT's, which transformers would put around a text, or never cut."""
    for file in (_SETTINGS, "special_tokens_map.json"):
        content = read_json(folder, file, optional=True)
        for role in (*_SPECIAL, *_OTHER_ROLES):
            known = [_SPECIAL[role]] if role in _SPECIAL else list(_SPECIAL.values())
            other = next((token for token in _contents(content.get(role)) if token not in known), None)
            if other is not None:
                detail = f"{name} is used with {role} {other!r} ({file}), which is not supported"
                raise UnusableCheckpointError(folder, detail, _BESIDE)


def _refuse_added(folder: Path, name: str, numbers: Mapping[str, int]) -> None:
    """Refuse tokens beside the vocabulary's. Where files only repeat BERT's, with their numbers, they add nothing."""
    added = [("added_tokens.json", *each) for each in read_json(folder, "added_tokens.json", optional=True).items()]
    decoder = read_json(folder, _SETTINGS, optional=True).get("added_tokens_decoder") or {}
    pairs = decoder.items() if isinstance(decoder, dict) else [("none", decoder)]
    added += [(_SETTINGS, token, number) for number, each in pairs for token in _contents(each)]
    for file, token, number in added:
        if token not in _SPECIAL.values() or str(numbers[token]) != str(number):
            detail = f"{name} is used with a further token, {token!r} of number {number} ({file}), not supported"
            raise UnusableCheckpointError(folder, detail, _BESIDE)


def _contents(stated: Any) -> list[Any]:
    """The texts of a special token, or of several in a list or dictionary; a token may be an object with more to it."""
    match stated:
        case {"content": content}:
            return [content]
        case dict():
            several = list(stated.values())
        case list():
            several = stated
        case _:
            several = [stated]
    return [each.get("content", each) if isinstance(each, dict) else each for each in several if each is not None]
