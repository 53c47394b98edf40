"""Thin scripts, one per training stage; run them, do not import them."""
