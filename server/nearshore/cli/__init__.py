"""The command line: one module a command, `main` joins them."""

from nearshore import threads as threads  # before all that loads numpy, FAISS and ONNX Runtime
