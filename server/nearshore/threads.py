"""How many threads native libraries may start. Importing this sets it, so entry points import it before all else.

OpenMP, OpenBLAS and Rayon read their variables once, when they are loaded. Parallelism is ours: one worker a core, each
running one thing on one thread; a pool per library on top of that only makes them fight for the same cores.
The client does not import this: the process that it is used in belongs to somebody else.
"""

from __future__ import annotations

import os

THREADS_PER_LIBRARY = 1

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_variable] = str(THREADS_PER_LIBRARY)
os.environ["TOKENIZERS_PARALLELISM"] = "false"
