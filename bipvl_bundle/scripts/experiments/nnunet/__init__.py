"""The real nnU-Net, in an environment of its own."""
