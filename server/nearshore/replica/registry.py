"""Which collections this process follows, by id and by name. Other processes make and delete collections too."""

from __future__ import annotations

import threading
from collections.abc import Callable

from nearshore.errors import CollectionNotFoundError
from nearshore.records import Collection
from nearshore.replica.follow import Follower


class Registry:
    """Followers by collection id, and the ids of names. Thread-safe; the store is the truth, read before each call."""

    def __init__(self, make: Callable[[Collection, bool], Follower]) -> None:
        """make: a follower of a collection, which already serves an empty view if the flag says so."""
        self._make = make
        self._lock = threading.Lock()  # guards all below
        self._followers: dict[int, Follower] = {}
        self._names: dict[str, int] = {}
        self._deleted: set[int] = set()  # by this process, and the heads have not been read since
        self._outdated: list[Follower] = []  # of ids that the store, restored, gave to other collections

    def find(self, name: str) -> Follower | None:
        """The follower of the collection of this bare name."""
        with self._lock:
            return self._followers.get(self._names.get(name, 0))

    def named(self) -> list[Follower]:
        """All that have a name, by name."""
        with self._lock:
            return [self._followers[self._names[name]] for name in sorted(self._names)]

    def by_id(self) -> dict[int, Follower]:
        """All, those of collections that were just deleted included."""
        with self._lock:
            return dict(self._followers)

    def deleted(self) -> set[int]:
        """Ids that this process deleted."""
        with self._lock:
            return set(self._deleted)

    def enter(self, collection: Collection, *, empty: bool = False) -> tuple[Follower | None, bool]:
        """The follower of a collection, and whether it was made now; None if this process deleted the collection.

        empty: the collection was created just now.
        """
        made: Follower | None = None
        follower, missing = self._place(collection, made)
        if missing:
            made = self._make(collection, empty)  # not under the lock: it may write files, and a disk can be slow
            follower, _ = self._place(collection, made)
        if made is not None and made is not follower:  # meanwhile another thread has deleted or entered it
            made.close(CollectionNotFoundError(collection.spec.name))
        return follower, follower is not None and follower is made

    def knows(self, collection: Collection) -> bool:
        """Whether exactly this collection is followed."""
        with self._lock:
            follower = self._followers.get(collection.id)
        return follower is not None and follower.replica.collection == collection

    def delete(self, collection: Collection) -> None:
        """Free the name at once: this process deleted the collection."""
        with self._lock:
            self._deleted.add(collection.id)
            self._free_name(collection)

    def unname(self, follower: Follower) -> None:
        """Free the name of a follower whose collection is gone; the follower is removed later."""
        with self._lock:
            self._free_name(follower.replica.collection)

    def remove(self, follower: Follower) -> None:
        """Forget a follower whose collection is gone."""
        collection = follower.replica.collection
        with self._lock:
            if self._followers.get(collection.id) is follower:
                del self._followers[collection.id]
                self._free_name(collection)

    def settle(self, deleted: set[int]) -> list[Follower]:
        """The heads were read after `deleted` was taken from here: who is gone is seen in them from now on.

        Returns the followers to drop because the store has another collection in their place.
        """
        with self._lock:
            self._deleted -= deleted
            for each in self._followers.values():  # a list that was read before a deletion may have taken over a name
                collection = each.replica.collection
                if collection.id not in deleted | self._deleted:
                    self._names.setdefault(collection.spec.name, collection.id)
            outdated, self._outdated = self._outdated, []
        return outdated

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._followers, self._names = {}, {}

    def _place(self, collection: Collection, made: Follower | None) -> tuple[Follower | None, bool]:
        """The follower of a collection, which is `made` where there was none; and whether one has to be made first."""
        with self._lock:
            if collection.id in self._deleted:
                return None, False
            follower = self._followers.get(collection.id)
            if follower is not None and follower.replica.collection != collection:
                self._outdated.append(self._followers.pop(collection.id))
                self._free_name(follower.replica.collection)
                follower = None
            follower = follower or made
            if follower is None:
                return None, True
            self._followers[collection.id] = follower
            self._names[collection.spec.name] = collection.id
            return follower, False

    def _free_name(self, collection: Collection) -> None:
        if self._names.get(collection.spec.name) == collection.id:
            del self._names[collection.spec.name]
