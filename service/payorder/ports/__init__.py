"""What the workflows need of the world, in their words."""
