"""The engine: tasks, models, patching and statistics. Importing it does not import torch."""
