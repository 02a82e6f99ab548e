"""The trainable models: their layers, their losses, and the table of model kinds."""
