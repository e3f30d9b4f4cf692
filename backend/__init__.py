"""The engine: tasks, models, patching and measures. Importing it does not import torch."""
