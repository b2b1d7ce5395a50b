"""How much one request may ask for, as plain values; `app` fills them in from the settings."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ID_BYTES = 512
MAX_KEY_BYTES = 128
MAX_DIMENSIONS = 4_096
MAX_REQUEST_ID_CHARACTERS = 128
MAX_EF_SEARCH = 10_000
DEFAULT_LIMIT = 10
DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that an operator can set; the constants of this module are part of the API."""

    max_documents: int = 1_000
    max_queries: int = 256
    max_limit: int = 1_000
    max_window: int = 10_000
    max_text_bytes: int = 1 << 20
    max_metadata_keys: int = 64
    max_metadata_bytes: int = 64 << 10
    max_filter_bytes: int = 8 << 10
    max_collections: int = 1_000
    max_read_after: int = 100
    max_read_wait_s: float = 30.0
    max_page_bytes: int = 3_500_000
    max_message_bytes: int = 64 << 20
