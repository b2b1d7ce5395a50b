"""From a folder on disk to a mirror that goes on where the snapshot stood."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from pathlib import Path

import numpy as np

from nearshore.errors import CorruptionError
from nearshore.index import IndexOptions, Segment
from nearshore.records import Collection
from nearshore.replica.directory import Directory
from nearshore.replica.mirror import Mirror
from nearshore.replica.payload import OpenFile, Payload
from nearshore.replica.snapshots import IDS, NOT_OF_THE_FILE, PAYLOAD, PLACES, Manifest, SnapshotError, copy_verified

PASSING = NOT_OF_THE_FILE | {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}  # time or the operator mends it


def load_snapshot(
    source: Path, manifest: Manifest, collection: Collection, folder: Path, options: IndexOptions, lock: threading.Lock
) -> Mirror:
    """Copy the snapshot in `source` to the working folder `folder` and open it there.

    Raises SnapshotError or another CorruptionError when it does not verify, OSError when the working files cannot be
    written or read, which says nothing about the snapshot; then `folder` is gone again.
    """
    folder.mkdir(parents=True)
    try:
        copy_verified(source, manifest, folder)
        return _open(source, manifest, collection, folder, options, lock)
    except CorruptionError as error:
        shutil.rmtree(folder, ignore_errors=True)
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in PASSING and not isinstance(error, SnapshotError):
            raise cause from None  # in reading the copy, which had verified
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _open(
    source: Path, manifest: Manifest, collection: Collection, folder: Path, options: IndexOptions, lock: threading.Lock
) -> Mirror:
    spec = collection.spec
    segment = Segment.load(
        folder, dimensions=spec.dimensions, metric=spec.metric, kind=spec.index_kind, options=options
    )
    starts, lengths = np.load(folder / PLACES, allow_pickle=False)
    with (folder / IDS).open(encoding="utf-8") as lines:
        ids = [one for line in lines for one in json.loads(line)]
    alive = segment.publish().alive
    rows = {ids[row]: row for row in np.flatnonzero(alive).tolist()} if len(ids) == len(alive) else {}
    counts = {len(ids), len(starts), segment.row_count}
    if counts != {manifest.rows} or len(rows) != manifest.live_rows:
        raise SnapshotError(source, IDS, f"rows {sorted(counts)} and {len(rows)} ids do not fit together")
    mirror = Mirror(segment, Payload(OpenFile(folder / PAYLOAD), starts, lengths), folder, lock)
    mirror.restore(ids, Directory(rows), manifest.cursor, manifest.commit_at)
    return mirror
