"""Writes an encoder as an ONNX graph, node by node, with the onnx package. `encoder` is where to start reading."""
