"""tao-daemon: turns unlabelled production traffic into a better served model, round after round."""

__version__ = "0.1.0"
