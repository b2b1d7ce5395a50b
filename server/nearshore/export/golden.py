"""The texts whose vectors, or scores, travel with every bundle: each exercises what has gone wrong somewhere."""

GOLDEN_TEXTS = (
    "",
    " \t\r\n ",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "How do I parse a date from a string? See datetime.strptime(date_string, format).",
    "[CLS] text that spells [SEP] special [MASK] tokens [PAD]",
    "Café, cafe\u0301, STRASSE, straße, İstanbul: accents composed, decomposed and folded",
    "検索サービスは文章をベクトルに変換します。 한국어 검색 مرحبا بالعالم नमस्ते",
    "👩‍👩‍👧 🇩🇪 emoji, \u200bzero width\u200d, \ufffd replacement, \x07 bell",
    "supercalifragilisticexpialidocious" * 4,
    "x = {k: v**2 for k, v in enumerate([3.14, -1e-9, 0xFF])}  # ¿¡€½²→∞",
    "one sentence that is far too long for the model and is cut at its limit, word after word, " * 40,
)
"""At least one is longer than any limit up to 600 tokens; none ends in NUL, which golden.npz would drop."""

GOLDEN_PAIRS = (
    *(("How do I parse a date from a string?", text) for text in GOLDEN_TEXTS),
    *((query, "The quick brown fox jumps over the lazy dog.") for query in GOLDEN_TEXTS[5:]),
    (GOLDEN_TEXTS[-1], GOLDEN_TEXTS[-1]),
)
"""Queries and texts for a cross-encoder; the text, the query and both are cut."""
