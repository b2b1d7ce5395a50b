"""Reads what torch.save() writes of a state dict, without PyTorch and without running the pickle in it."""
