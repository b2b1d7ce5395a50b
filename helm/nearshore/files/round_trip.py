"""What `helm test` runs: a document that was written is found, through each address that is given."""

import sys
import uuid

from nearshore.client import Client, Query
from nearshore.records import Document

PASSAGE = Document("keys-1", "Rotate the signing key every ninety days.", metadata={"lang": "en"})
OTHER = Document("tea-1", "Green tea is steeped at eighty degrees.", metadata={"lang": "en"})

for target in sys.argv[1:]:
    name = f"helm-test-{uuid.uuid4().hex[:12]}"
    with Client(target) as client:
        client.wait_ready()
        client.create_collection(name, model=client.tokenize([""]).model)
        try:
            client.upsert(name, [PASSAGE, OTHER])
            query = Query(text=PASSAGE.text, filter='lang = "en"', limit=1)
            found = [hit.document.id for hit in client.search(name, query).hits]
            if found != [PASSAGE.id]:
                sys.exit(f"{target}: the search found {found}, not {[PASSAGE.id]}")
        finally:
            client.delete_collection(name)
    print(f"{target}: created, written, found, deleted")
