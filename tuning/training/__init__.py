"""The model and its training: the base model, the adapter put into it, the Trainer."""
