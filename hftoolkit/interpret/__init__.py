"""Looking inside models: what units do along a sentence, what they know, how far gradients reach."""
