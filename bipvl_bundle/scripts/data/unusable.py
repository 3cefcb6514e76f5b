"""Error of a file that cannot be used."""


class UnusableFile(ValueError):
    """Error of a file that is damaged, impossible, or none that can be read; it names the file."""
