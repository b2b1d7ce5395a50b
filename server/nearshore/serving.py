"""What `app` uses once the models are loaded: store, replicas, services and chores.

It imports this only while they load: with FAISS, lark and all that answers calls it is a third of all imports.
"""

from nearshore.assembly import make_parts, open_store, replica_options, tell_of_unused_store
from nearshore.chores import announce, become_ready, prune_regularly
from nearshore.gauges import reader_of
from nearshore.replica import Replicas
from nearshore.service.server import SERVICE_NAMES, add_refusals, add_services

__all__ = [
    "SERVICE_NAMES",
    "Replicas",
    "add_refusals",
    "add_services",
    "announce",
    "become_ready",
    "make_parts",
    "open_store",
    "prune_regularly",
    "reader_of",
    "replica_options",
    "tell_of_unused_store",
]
