"""The code that writes the generated pages of the documentation."""
