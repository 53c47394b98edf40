"""Data: pure functions first, then one small collator or data-set class per file; never imports models."""
