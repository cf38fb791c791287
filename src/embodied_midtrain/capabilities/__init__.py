"""Embodied questions by capability: seven domains, with exact answers from simulators and trajectories."""
