"""What `helm test` runs in the cluster, against a server here."""

import subprocess
import sys

from helm.generate import CHART
from tests.servers import InProcessServer

SCRIPT = (CHART / "files" / "round_trip.py").read_text()


def test_the_round_trip_finds_what_it_wrote(server: InProcessServer) -> None:
    """Handed to `python -c` as in the pod, it passes through every address and leaves no collection behind."""
    targets = [server.address, f"dns:///{server.address}"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *targets], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{target}: created, written, found, deleted" for target in targets]
    with server.client() as client:
        assert not [each.name for each in client.list_collections() if each.name.startswith("helm-test-")]
