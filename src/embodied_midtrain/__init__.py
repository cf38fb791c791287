"""Choose, mid-train and prove a better starting point for robot policies."""

__version__ = "0.1.0"
