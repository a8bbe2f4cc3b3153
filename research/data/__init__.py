"""Annotated frames: stores and tables, label formats, estimates of missing points, photos that
belong together, and the builder of MERL-RAV."""
