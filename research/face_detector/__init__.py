"""Training of the face detector, and the scenes it is trained on."""
