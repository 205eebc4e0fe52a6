"""The Self-Attention UNet and its condition."""
