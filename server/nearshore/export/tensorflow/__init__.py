"""Reads checkpoints of TensorFlow without TensorFlow. `tensors` reads any, `names` and `store` know BERT's."""
