"""Training parts that more than one recipe needs: checkpoints, callbacks, optimizers, parameter groups."""
