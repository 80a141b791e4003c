"""The verb `gpu`: every method timed on the GPU that is here, beside what is predicted for it; a file to send back."""
