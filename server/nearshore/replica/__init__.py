"""Keeps an index true to its store: follows the feed, builds aside, saves snapshots, answers from immutable views."""

from nearshore.replica.hindrance import Hindrance as Hindrance
from nearshore.replica.options import ReplicaOptions as ReplicaOptions
from nearshore.replica.replica import IndexLoadingError as IndexLoadingError
from nearshore.replica.replica import Replica as Replica
from nearshore.replica.replica import ReplicaClosedError as ReplicaClosedError
from nearshore.replica.replicas import Replicas as Replicas
from nearshore.replica.view import LoadProgress as LoadProgress
from nearshore.replica.view import ReplicaState as ReplicaState
from nearshore.replica.view import ReplicaView as ReplicaView
from nearshore.replica.view import Status as Status
