"""Export of a trained model as one file for other programs."""
