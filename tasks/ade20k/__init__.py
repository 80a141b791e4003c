"""ADE20K segmentation: its folders, and its classes."""
