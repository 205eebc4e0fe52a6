"""Engines run the reverse-diffusion loop of a batch of slices; all give the same numbers within a stated tolerance."""
