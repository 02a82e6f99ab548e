"""The model: its definition, its folder, and text from it."""
