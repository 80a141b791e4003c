"""Reading images and masks from folders and archives."""
