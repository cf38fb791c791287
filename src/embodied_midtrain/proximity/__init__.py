"""Proximity."""
