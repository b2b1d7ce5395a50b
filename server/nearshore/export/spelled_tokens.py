"""Sees to it that text which spells a special token is text, whatever kind of tokenizer reads it.

The library can be told so (encode_special_tokens), and then takes no special token out of a text before it is cut. But
a vocabulary of pieces, such as XLM-R's or ALBERT's, has the special tokens among its pieces, and gives them all the
same. So in such a tokenizer the first character of a spelled token is set apart before pieces are looked for. No other
text is cut differently. Where special tokens are to be read in texts, they are taken out before that, so that only what
a normalizer makes of other characters is text, such as the wide ones of "＜/s＞".

A vocabulary may hold a token in other characters than a text spells it in: with ▁ for a space, or with a character for
each byte. Pieces are looked for in those characters, so it is in those that it is set apart.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import tokenizers

_BYTES: Any = tokenizers.decoders.ByteLevel()


def guarded(content: Mapping[str, Any]) -> dict[str, Any]:
    """A tokenizer.json under which no text becomes a special token: itself, unless that is needed.

    It must be one that the library reads.
    """
    tokenizer: Any = tokenizers.Tokenizer.from_str(json.dumps(content))
    tokenizer.encode_special_tokens = True
    forged = [token for token in _special_tokens(content) if _reads_as_token(tokenizer, token)]
    if not forged:
        return dict(content)
    pattern = "|".join(f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in forged)
    apart = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    steps = [each for each in (content.get("pre_tokenizer"), apart) if each is not None]
    return {**content, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}


def _special_tokens(content: Mapping[str, Any]) -> list[str]:
    """Of two characters at least: one alone cannot be taken apart."""
    found = [each["content"] for each in content.get("added_tokens") or () if each.get("special")]
    return [token for token in found if len(token) > 1]


def _reads_as_token(tokenizer: Any, token: str) -> bool:
    """Whether a text that spells the token, alone or within others, has the token in it."""
    number = tokenizer.token_to_id(token)
    for spelling in {token, _BYTES.decode([token])}:
        for text in (spelling, f"a{spelling}a", f"a {spelling} a"):
            encoding = tokenizer.encode(text, add_special_tokens=False)
            pairs = zip(encoding.ids, encoding.offsets, strict=True)
            if any(each == number and text[start:end].strip() == spelling.strip() for each, (start, end) in pairs):
                return True
    return False
