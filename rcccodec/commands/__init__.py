"""The commands of ``rcc``, one file each or a few that belong together. Torch is loaded inside them only."""
