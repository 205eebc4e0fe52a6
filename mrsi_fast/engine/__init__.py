"""Engines run the reverse-diffusion loop of one batch of slices; all give the same numbers within a stated tolerance."""
