"""`python -m nearshore.cli.private_server FOLDER serve ...`: a nearshore command that ends with who started it.

Its standard input is a pipe that nobody writes into: the system closes it at the end of the process that holds the
other side, however that ends. The folder is that process's temporary one and is removed then. All that it keeps is
there: no store that the settings name is used.
"""

from __future__ import annotations

import os
import sys
import threading

from nearshore.__main__ import main
from nearshore.cli.session import FIXED

_REMOVE = "import shutil, sys; shutil.rmtree(sys.argv[1], ignore_errors=True)"


def _end_with_parent(folder: str) -> None:
    """Wait for the end of standard input; then become the process that removes the folder.

    Nobody needs an orderly end: and thus no other thread is left that could write into the folder meanwhile.
    """
    while os.read(0, 1):  # not sys.stdin, whose lock the interpreter wants at its end
        pass
    os.execv(sys.executable, [sys.executable, "-c", _REMOVE, folder])  # noqa: S606 -- no shell is wanted


if __name__ == "__main__":
    _, folder, *arguments = sys.argv
    sys.argv = ["nearshore", *arguments]
    FIXED["store__url"] = ""
    threading.Thread(target=_end_with_parent, args=(folder,), name="parent", daemon=True).start()
    main()
