"""Fitting proposals: beta-VAE warm start, NERD, and the run that makes a model bundle of them."""
