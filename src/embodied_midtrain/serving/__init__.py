"""A policy behind vla-eval: every benchmark that it knows, each in its own container."""
