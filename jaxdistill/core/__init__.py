"""The foundation of every package: types, checks of values, random keys."""
