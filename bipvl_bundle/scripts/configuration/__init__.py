"""What is wrong with a configuration, told before it runs."""
