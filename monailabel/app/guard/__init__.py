"""What stands between a client's request and MONAI Label."""
