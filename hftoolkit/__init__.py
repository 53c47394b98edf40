"""hftoolkit: the lineage of neural NLP, from byte-pair encoding to PPO, as Hugging Face-native models and recipes."""
