"""Self-supervised learning, search and few-label segmentation for CT and MR."""

__version__ = "0.1.0"
