"""The napari plugin: it draws and reacts; `medssl` computes."""
