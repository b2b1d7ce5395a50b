"""What can go wrong, as exceptions that know no gRPC.

NearshoreError
├── CallerError                      the caller can mend it
│   ├── InvalidArgumentError         the request is wrong in itself
│   ├── NotFoundError                what it names is not there
│   ├── AlreadyExistsError
│   ├── PreconditionError            right in itself, wrong for this state
│   ├── HistoryChangedError          the token or page belongs to another history
│   ├── OverloadedError              come back later
│   └── DeadlineError                the caller's deadline passed
└── ServiceError                     the operator can mend it
    ├── UnavailableError             a part is not there right now
    ├── StorageFullError
    └── CorruptionError              something on disk is not what it was

Every class below those has one constant `reason` (stable, UPPER_SNAKE_CASE, part of the API), a message that says
what is wrong, and a `remedy` that says what to do. `metadata` are strings that a program can read.
nearshore.service.status maps each branch to a gRPC code.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class NearshoreError(Exception):
    """Base of every error raised on purpose."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str, remedy: str = "", **metadata: object) -> None:
        """Take what is wrong, what to do next, and facts for a program."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.metadata = {key: str(value) for key, value in metadata.items()}

    def __str__(self) -> str:
        """Message and remedy."""
        return f"{self.message} {self.remedy}".rstrip()


class CallerError(NearshoreError):
    """The caller can mend it."""


class InvalidArgumentError(CallerError):
    """The request is wrong in itself."""

    reason = "INVALID_ARGUMENT"


class NotFoundError(CallerError):
    """What the request names does not exist."""


class AlreadyExistsError(CallerError):
    """What the request wants to create exists."""


class PreconditionError(CallerError):
    """The request is right in itself but wrong for the present state."""


class HistoryChangedError(CallerError):
    """A token or cursor belongs to a history that this store does not have (restore, fail-over, namesake)."""

    reason = "HISTORY_CHANGED"


class OverloadedError(CallerError):
    """The server has as much work as it will hold."""

    reason = "OVERLOADED"


class DeadlineError(CallerError):
    """The caller's deadline passed before the work was done."""

    reason = "DEADLINE_EXCEEDED"


class ServiceError(NearshoreError):
    """The operator can mend it."""


class UnavailableError(ServiceError):
    """A part of the service is not there right now; nothing was written, a retry is safe."""

    reason = "UNAVAILABLE"


def unknown_outcome_remedy(*, repeatable: bool) -> str:
    """What to do about a write of which nobody knows whether it happened; repeatable: it has a request_id."""
    if repeatable:
        return "Repeat it with the same request_id only, which writes it at most once: else it may undo a later write."
    return "Look whether it happened before you repeat it: it has no request_id, so that may undo a later write."


class CommitUnknownError(UnavailableError):
    """The store failed, or its connection was lost, at COMMIT: the write may or may not have happened."""

    reason = "COMMIT_OUTCOME_UNKNOWN"

    def __init__(self, detail: str = "the store was lost at its commit", *, repeatable: bool = True) -> None:
        """detail: what happened; repeatable: the write has a request_id."""
        self.detail = detail
        super().__init__(
            f"The outcome of this write is not known: {detail}.", unknown_outcome_remedy(repeatable=repeatable)
        )


FULL_DISK = (errno.ENOSPC, errno.EDQUOT)  # of an OSError
MAKE_ROOM = "Free space or grow the volume, then retry"


OUT_OF_HANDLES = (errno.EMFILE, errno.ENFILE)


class OutOfHandlesError(UnavailableError):
    """The process, or the system, can open no more files."""

    reason = "TOO_MANY_OPEN_FILES"

    def __init__(self, doing: str) -> None:
        """doing: what failed, such as "reading FILE"."""
        problem = f"{doing[0].upper()}{doing[1:]} failed: this process or system has too many open files."
        remedy = "Retry; if it lasts, raise the limit of open files (ulimit -Hn, LimitNOFILE) or delete collections."
        super().__init__(problem, remedy)


class StorageFullError(ServiceError):
    """The disk is full."""

    reason = "STORAGE_FULL"

    def __init__(self, detail: str, holds: str = "the data folder") -> None:
        """detail: what was being written; holds: what is on the disk."""
        super().__init__(
            f"The disk that holds {holds} is full: {detail}.",
            f"What did not fit is not written. {MAKE_ROOM}.",
        )


class CorruptionError(ServiceError):
    """Something on disk is not what was written."""

    reason = "CORRUPT"


class InvalidWriteTokenError(InvalidArgumentError):
    """A read_after that no write returned."""

    reason = "INVALID_WRITE_TOKEN"

    def __init__(self, token: str) -> None:
        """token: as received."""
        super().__init__(
            f"read_after {token[:64]!r} is not a write token.", "Send the write_token of a write, unchanged."
        )


class CollectionNotFoundError(NotFoundError):
    """No collection of that name."""

    reason = "COLLECTION_NOT_FOUND"

    def __init__(self, name: str) -> None:
        """name: the bare collection id."""
        super().__init__(
            f"There is no collection {name!r}.", "List the collections to see those that exist.", collection=name
        )


class CollectionExistsError(AlreadyExistsError):
    """The collection name is taken."""

    reason = "COLLECTION_EXISTS"

    def __init__(self, name: str) -> None:
        """name: the bare collection id."""
        super().__init__(
            f"There is a collection {name!r} already.",
            "Choose another name, or delete the collection first.",
            collection=name,
        )


class InvalidMetadataError(InvalidArgumentError):
    """Metadata that no document can carry."""

    reason = "INVALID_METADATA"


class InvalidVectorsError(InvalidArgumentError):
    """Vectors whose bytes, width or values cannot be taken."""

    reason = "INVALID_VECTORS"


class InvalidSettingsError(InvalidArgumentError):
    """Settings that name something unknown or hold an impossible value."""

    reason = "INVALID_SETTINGS"


class InvalidAddressError(InvalidArgumentError):
    """A client was given a server's address that is not HOST:PORT."""

    reason = "INVALID_ADDRESS"

    def __init__(self, target: str) -> None:
        """target: as received."""
        super().__init__(
            f"{target[:200]!r} is not the address of a server: HOST:PORT, with a port from 1 to 65535.",
            "Write it as localhost:50051, 192.0.2.1:50051, [::1]:50051, or as a gRPC name such as dns:///host:50051.",
            target=target,
        )


class PortInUseError(UnavailableError):
    """Another process listens on the port."""

    reason = "PORT_IN_USE"

    def __init__(self, address: str) -> None:
        """address: host and port as they were asked for."""
        super().__init__(
            f"Cannot listen on {address}: the port is in use.",
            "Stop the process that listens there, or set server.port (--port) to another one; 0 takes a free one.",
            address=address,
        )


class AddressUnusableError(UnavailableError):
    """The address to listen on has no such name, is another machine's, or may not be used."""

    reason = "ADDRESS_UNUSABLE"

    def __init__(self, address: str, detail: str) -> None:
        """address: host and port as they were asked for; detail: what the system said."""
        super().__init__(
            f"Cannot listen on {address}: {detail}.",
            "Set server.host (--host) to an address of this machine: 127.0.0.1 is for itself alone, 0.0.0.0 for all "
            "its networks. A port below 1024 may need a privilege.",
            address=address,
        )


class WriteTokenExpiredError(PreconditionError):
    """A read_after older than what the store remembers."""

    reason = "WRITE_TOKEN_EXPIRED"

    def __init__(self, collection_id: int, position: int) -> None:
        """What the token names."""
        super().__init__(
            f"The write token in read_after that names commit {position} is older than store.retention_s.",
            "Read without it: every replica has long applied that write.",
            collection_id=collection_id,
            position=position,
        )


class InvalidRequestIdError(InvalidArgumentError):
    """A request_id that is too long or not printable ASCII."""

    reason = "INVALID_REQUEST_ID"


class RequestIdReusedError(InvalidArgumentError):
    """A request_id that an earlier write with another content used."""

    reason = "REQUEST_ID_REUSED"

    def __init__(self, request_id: str) -> None:
        """request_id: as received."""
        super().__init__(
            f"request_id {request_id!r} was used by an earlier write with another content.",
            "Use a new request_id for every new write, the same one only to retry.",
            request_id=request_id,
        )


class UnknownEnumError(InvalidArgumentError):
    """An enum number that this version does not know."""

    reason = "UNKNOWN_ENUM_VALUE"

    def __init__(self, field: str, number: int) -> None:
        """field: the path into the request; number: as received."""
        super().__init__(
            f"{field} has the unknown value {number}.",
            "Use a value of the proto that this server serves, or leave the field out.",
            field=field,
        )
