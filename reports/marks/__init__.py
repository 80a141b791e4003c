"""What a report finds out by comparing the rows of a frame, image by image: floors that dominate, what is ideal."""
