"""What every simulated scene needs, whoever uses it: fast software rendering and the geometry of its camera."""
