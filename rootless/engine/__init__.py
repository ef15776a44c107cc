"""The verbs over images, containers and volumes; where image, storage, network and runtime meet."""
