"""Variants and seeds: how far a difference in success can be trusted."""
