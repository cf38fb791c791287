"""A selection out: its samples in the forms that other tools train on, one form a file."""
