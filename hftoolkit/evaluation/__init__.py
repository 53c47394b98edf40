"""Measures of trained models: perplexity, n-gram baselines, minimal pairs."""
