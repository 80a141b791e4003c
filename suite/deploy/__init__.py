"""From a reduced model to what is deployed: files that are checked, and the times that a service would see."""
