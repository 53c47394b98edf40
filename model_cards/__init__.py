"""Templates of the model cards; a run fills in what it measured."""
