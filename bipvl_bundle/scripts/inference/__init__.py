"""What a request asks of a trained model."""
