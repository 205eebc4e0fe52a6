"""Each operation in plain PyTorch: the specification, the test oracle and the fallback."""
