"""The Self-Attention UNet and what it is told about the maps."""
